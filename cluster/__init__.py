"""Starting and stopping Ray clusters; knows nothing of what runs on them."""
