"""Messages that are kept on both sides' disks until the receiver's app is done with them."""
