"""Read manifests and check the values of export requests."""
