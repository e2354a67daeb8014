"""The audit: is a trained model backdoored? See README.md."""
