"""Where the keys to sign with come from."""
