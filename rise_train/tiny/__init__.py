"""The embedded tiny base: tokenizer, initialisation, procedural tools, pretraining. See docs/tiny-model.md."""
