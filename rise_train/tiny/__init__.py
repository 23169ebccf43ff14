"""The embedded tiny base model: its tokenizer, initialisation, procedural tools and pretraining. See docs/tiny-model.md."""
