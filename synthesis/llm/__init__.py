"""The client of any OpenAI-compatible endpoint: structured answers, a cache, costs, fences."""
