"""What is trained on: token ids, masks, and the proofs about them."""
