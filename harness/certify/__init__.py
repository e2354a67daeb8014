"""Certificates: what is known of data, model and training, with the tests that were run and those that were not."""
