"""`fastslow report`: runs and experiments as one HTML file that needs no network."""
