"""Baselines and networks that papers compare with, as plugins of lesionforge; only its public interface is used."""
