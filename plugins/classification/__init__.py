"""Classification networks: trained on datasets, used to name what images show, to screen them and to explain both."""
