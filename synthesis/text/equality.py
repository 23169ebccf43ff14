"""When two texts or values are the same, and for which purpose: each way of comparing has a name of its own."""


def request_key(text: str) -> str:
    """A request without case, extra space, and punctuation around words: requests with one key are duplicates."""
    return " ".join(word.strip(".,;:!?\"'()") for word in text.lower().split())
