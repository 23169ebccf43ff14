"""The policy that a name stands for."""

from pathlib import Path

from eval.policies.base import Policy
from eval.policies.endpoint import EndpointPolicy
from eval.policies.local import LocalPolicy
from eval.policies.scripted import PREFIX, scripted
from synthesis.errors import UserError


def load_policy(model: str | Path, batch_size: int = 32, max_new_tokens: int = 256, temperature: float = 0.0) -> Policy:
    """The policy that `model` names.

    A folder, a Hub id, `URL#MODEL` for an OpenAI-compatible server, or `policy:NAME` for a scripted one.

    Raises:
        UserError: no such folder, model or scripted policy, a URL without a model name, or a temperature for what
            answers greedily.
    """
    text = str(model)
    if temperature and not text.startswith(("http://", "https://")):
        raise UserError(f"--temperature: {text} answers greedily; serve the model, and name it by URL#MODEL")
    if text.startswith(PREFIX):
        return scripted(text)
    if text.startswith(("http://", "https://")):
        url, _, name = text.partition("#")
        if not name:
            raise UserError(
                f"{text}: a server needs the model's name after a #, as in http://localhost:8000/v1#my-model"
            )
        return EndpointPolicy(url, name, max_new_tokens, temperature=temperature)
    return LocalPolicy(text, batch_size, max_new_tokens)


def engine(policy: Policy) -> dict[str, str]:
    """What answers, and the versions that its answers may depend on."""
    from importlib.metadata import version

    if isinstance(policy, LocalPolicy):
        device, dtype = policy.model.device.type, str(policy.model.dtype).removeprefix("torch.")
        packages = {name: version(name) for name in ("transformers", "torch", "peft")}
        return {"kind": "transformers", "device": device, "dtype": dtype, **packages}
    if isinstance(policy, EndpointPolicy):
        return {"kind": "endpoint", **policy.manner.as_dict()}
    return {"kind": "scripted"}
