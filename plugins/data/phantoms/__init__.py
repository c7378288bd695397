"""How phantoms are drawn: numbers from seeds, anatomy, outline, paint, photograph."""
