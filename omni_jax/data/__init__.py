"""Media and text to arrays, and token ids back to text."""
