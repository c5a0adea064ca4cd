"""`contracts.WorldModel` and `contracts.ActionPrior` over an artifact's graphs: numpy and onnxruntime only."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from worldpilot.errors import InvalidInput
from worldpilot.types import FloatArray, History, ModelSpec, Rollouts


class OnnxWorldModel:
    """Encoder, predictor and, where it has signals, readout as one world model.

    Args:
        spec: what the manifest says of the model.
        graphs: sessions named `encoder`, `predictor`, `readout`, with the signatures of `artifact.signatures`.
        derived: signals that are computed, name -> (sine's signal, cosine's signal); the readout gives the others.
    """

    def __init__(
        self,
        spec: ModelSpec,
        graphs: Mapping[str, ort.InferenceSession],
        derived: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        self._spec = spec
        self._encoder, self._predictor, self._readout = graphs["encoder"], graphs["predictor"], graphs.get("readout")
        self._derived = dict(derived or {})
        self._read = [signal.name for signal in spec.signals if signal.name not in self._derived]
        self._takes_noise = any(node.name == "noise" for node in self._predictor.get_inputs())
        self._dtype = np.dtype(np.uint8 if spec.observation == "image" else np.float32)
        steps = {node.name: node.shape for node in self._predictor.get_inputs()}["actions"][1]
        self._fixed_horizon = steps - (spec.history - 1) if isinstance(steps, int) else None

    @property
    def spec(self) -> ModelSpec:
        """What a planner or a node needs to know."""
        return self._spec

    def encode(self, observations: npt.NDArray[Any]) -> FloatArray:
        """Images of shape (B, H, W, 3) uint8 RGB, or states of shape (B, S) float32, to latents of shape (B, D).

        Raises:
            InvalidInput: another shape or dtype, or a state that is not finite.
        """
        expected = self._spec.observation_shape
        if observations.dtype != self._dtype or observations.shape[1:] != expected:
            raise InvalidInput(
                f"encode: this model sees {self._spec.observation}s of shape (B, {', '.join(map(str, expected))}) "
                f"{self._dtype}, got {observations.shape} {observations.dtype}"
            )
        if self._dtype == np.float32 and not np.isfinite(observations).all():
            raise InvalidInput("encode: the state is not finite; drop this observation and hold")
        return self._encoder.run(None, {"observation": observations})[0]  # type: ignore[return-value]

    def predict(self, history: History, actions: FloatArray) -> FloatArray:
        """Actions of shape (N, H, A) to latents of shape (E, N, H, D), one per ensemble member.

        A model that samples gets the same noise at every call and for all N: plans differ by their actions, not by
        their luck.

        Raises:
            InvalidInput: a history or actions of another shape or not finite, or more steps than a graph exported
                with a fixed horizon has.
        """
        h, a = self._spec.history, self._spec.action.dim
        _check("history latents", history.latents, (h, self._spec.latent_dim))
        _check("history actions", history.actions, (h - 1, a))
        _check("actions", actions, (None, None, a))
        n = len(actions)
        past = np.broadcast_to(history.actions, (n, h - 1, a))
        latents = np.broadcast_to(history.latents, (n, *history.latents.shape))
        return self.predict_each(latents, np.concatenate([past, actions], 1))

    def predict_each(self, latents: FloatArray, actions: FloatArray) -> FloatArray:
        """`predict` with a history for each of N: (N, h, D) and, past and planned, (N, h-1+H, A) to (E, N, H, D)."""
        h, a = self._spec.history, self._spec.action.dim
        _check("latents", latents, (None, h, self._spec.latent_dim))
        _check("actions", actions, (len(latents), None, a))
        n, horizon = len(latents), actions.shape[1] - (h - 1)
        steps = self._fixed_horizon or horizon
        if not 0 <= horizon <= steps:
            raise InvalidInput(f"predict: this predictor was exported for {steps} steps, got actions for {horizon}")
        # Predictions are causal: what follows the last action asked for changes nothing before it.
        padded = np.zeros((n, h - 1 + steps, a), np.float32)
        padded[:, : h - 1 + horizon] = actions
        inputs = {"latents": np.ascontiguousarray(latents, np.float32), "actions": padded}
        if self._takes_noise:
            inputs["noise"] = self._noise(n, steps)
        predicted: Any = self._predictor.run(None, inputs)[0]
        return predicted[:, :, :horizon]

    def _noise(self, n: int, steps: int) -> FloatArray:
        """The members' noise, of shape (E, n, steps, D)."""
        shape = (self._spec.members, 1, steps, self._spec.latent_dim)
        drawn = np.random.default_rng(0).standard_normal(shape, np.float32)
        return np.repeat(drawn, n, axis=1)

    def signals(self, latents: FloatArray) -> dict[str, FloatArray]:
        """Latents of shape (..., D) to signals, name -> (...), in physical units."""
        if self._readout is None:
            return {}
        lead = latents.shape[:-1]
        flat = np.ascontiguousarray(latents, np.float32).reshape(-1, self._spec.latent_dim)
        read: Any = self._readout.run(None, {"latents": flat})[0]
        columns = np.ascontiguousarray(read.T).reshape(len(self._read), *lead)
        values: dict[str, FloatArray] = dict(zip(self._read, columns, strict=True))
        for name, (sine, cosine) in self._derived.items():
            values[name] = np.arctan2(values[sine], values[cosine])
        return values

    def rollout(self, history: History, actions: FloatArray, previous_control: FloatArray) -> Rollouts:
        """What actions of shape (N, H, A) lead to; `previous_control` of shape (U,) is in force now.

        Latents are the mean over the ensemble; disagreement is the members' RMS distance from it, per latent dimension.
        """
        predicted = self.predict(history, actions)
        latents = predicted.mean(axis=0)
        spread = predicted - latents
        variance = np.einsum("enhd,enhd->nh", spread, spread) / (predicted.shape[0] * predicted.shape[-1])
        return Rollouts(
            latents=latents,
            actions=actions,
            signals=self.signals(latents),
            disagreement=np.sqrt(variance),
            action_spec=self._spec.action,
            previous_control=previous_control,
            current_signals={name: float(value) for name, value in self.signals(history.latents[-1]).items()},
        )


class OnnxPrior:
    """The action prior: noise in, action sequences out, so that one generator state gives one set of proposals."""

    def __init__(
        self,
        spec: ModelSpec,
        graph: ort.InferenceSession,
        derived: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        self._spec, self._graph, self._derived = spec, graph, dict(derived or {})
        self._read = [signal.name for signal in spec.signals if signal.name not in self._derived]
        self._takes_goal = any(node.name == "goal" for node in graph.get_inputs())
        self._low, self._high = spec.action.action_low, spec.action.action_high

    def propose(
        self, history: History, n: int, rng: np.random.Generator, goal: Mapping[str, float] | None = None
    ) -> FloatArray:
        """n action sequences of shape (n, H, A), within the action bounds.

        Args:
            goal: signals to be reached, name -> value in physical units; a quarter of the proposals don't hear of it,
                and a prior without goals doesn't either.

        Raises:
            InvalidInput: a history of another shape or not finite, or proposals that are not finite.
        """
        _check("history latents", history.latents, (self._spec.history, self._spec.latent_dim))
        noise = rng.standard_normal((n, self._spec.horizon, self._spec.action.dim), np.float32)
        latents = np.ascontiguousarray(np.broadcast_to(history.latents, (n, *history.latents.shape)), np.float32)
        inputs = {"latents": latents, "noise": noise}
        if self._takes_goal:
            inputs["goal"], inputs["goal_mask"] = self._goal(goal or {}, n)
        actions: Any = self._graph.run(None, inputs)[0]
        if not np.isfinite(actions).all():
            raise InvalidInput("propose: the prior's proposals are not finite; hold")
        return np.clip(actions, self._low, self._high, out=actions)

    def _goal(self, goal: Mapping[str, float], n: int) -> tuple[FloatArray, FloatArray]:
        """Values and mask, both of shape (n, S)."""
        asked = dict(goal)
        for name, (sine, cosine) in self._derived.items():
            if name in asked:
                asked[sine], asked[cosine] = np.sin(asked[name]), np.cos(asked[name])
        known = [name in asked and bool(np.isfinite(asked[name])) for name in self._read]
        values = np.array([asked[name] if k else 0.0 for name, k in zip(self._read, known, strict=True)], np.float32)
        mask = np.tile(np.asarray(known, np.float32), (n, 1))
        mask[n - n // 4 :] = 0
        return np.tile(values, (n, 1)), mask


def _check(what: str, array: FloatArray, shape: tuple[int | None, ...]) -> None:
    if array.ndim != len(shape) or any(n not in (None, got) for n, got in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise InvalidInput(f"{what}: expected shape ({wanted}), got {array.shape}")
    if not np.isfinite(array).all():
        raise InvalidInput(f"{what}: not finite; drop this and hold")
