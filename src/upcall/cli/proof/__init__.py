"""What ``upcall prove``, the kill matrix and the soak share: processes to end, traffic, and an account of it all."""
