"""What people and scripts see: views of results, and the one console that shows them."""
