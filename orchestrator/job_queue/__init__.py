"""From a waiting job to the right to send it, and back when its owner has died."""
