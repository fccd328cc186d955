"""From a loaded checkpoint and a conversation to a reply."""
