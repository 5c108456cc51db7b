"""Two small models, trained on real data and brought live through the platform's own API."""
