"""Train the action prior: flow matching over sequences of actions, given the history's latents (D-MPC, 2410.05364).

It is conditioned on goals in hindsight: what the episode's signals were some time later is, for the actions before, a
goal that was reached. Entities (the words before the first underscore of the signals' names) are asked for at random,
and in a quarter of the windows none is.
"""

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from tqdm import tqdm

from worldpilot.errors import InvalidInput
from worldpilot.models.action_prior.networks import Denoiser, PriorConfig
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.models.data.windows import Frames
from worldpilot.models.world_model import train as world_model
from worldpilot.types import ActionSpec, FloatArray


@dataclass(frozen=True)
class PriorTrainConfig:
    """How a prior is trained."""

    steps: int = 8000
    batch: int = 512
    horizon: int = 5  # model steps
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    ema: float = 0.999
    views: int = 1  # of each episode, if the task has symmetries
    goal_ahead: int = 75  # a goal lies up to so many control steps ahead; 0: no goals
    evaluate_every: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.horizon, self.evaluate_every) < 1 or not 0 <= self.ema < 1:
            raise InvalidInput("prior: steps, batch, horizon, evaluate_every must be >= 1 and 0 <= ema < 1")


class Sampler(nn.Module):
    """The denoiser unrolled over a diffusers scheduler's noise levels: one graph, noise in, actions out."""

    sigmas: Tensor

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(denoiser.config.sampler_steps)
        self.register_buffer("sigmas", torch.as_tensor(scheduler.sigmas, dtype=torch.float32).clone())

    def forward(self, latents: Tensor, noise: Tensor, goal: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Latents (B, h, D), noise (B, H, A), goal and mask (B, S) to normalised actions (B, H, A) in [-1, 1]."""
        x = noise
        for i in range(self.denoiser.config.sampler_steps):
            sigma = self.sigmas[i] + torch.zeros_like(x[:, 0, 0])  # len(x) would be burnt into the graph
            x = x + (self.sigmas[i + 1] - self.sigmas[i]) * self.denoiser(x, sigma, latents, goal, mask)
        return x.clamp(-1, 1)


def train_prior(
    store: EpisodeStore, spec: ActionSpec, encoder: Path, folder: Path, config: PriorTrainConfig
) -> Denoiser:
    """Train on the store's training episodes, in the latents of the world model in `encoder`; resumes."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    nets = world_model.load(encoder, "encoder")
    train_index, held_index = store.split()
    frames, held = Frames.load(store, train_index), Frames.load(store, held_index)
    drawn = frames.draw_views(config.views, np.random.default_rng([config.seed, 4]))
    latents = world_model.encode_views(nets, frames, drawn)
    held_latents = world_model.encode_all(nets, held.observations)  # as they are
    signals = len(frames.names) if config.goal_ahead else 0
    sizes = PriorConfig(nets.config.latent_dim, nets.config.history, config.horizon, spec.dim, goal_dim=signals)
    denoiser = Denoiser(sizes)
    average = copy.deepcopy(denoiser).requires_grad_(False)
    windows, held_windows = (f.windows(sizes.history - 1 + sizes.horizon, spec.block) for f in (frames, held))
    rng = np.random.default_rng([config.seed, 3])
    span = np.arange(sizes.history) * spec.block  # from a window's first frame to each of its history, and
    now = span[-1]  # to its present

    def goals(source: Frames, at: np.ndarray, views: np.ndarray) -> tuple[Tensor | None, Tensor | None]:
        if not sizes.goal_dim:
            return None, None
        signals, mask = hindsight(source, at + now, views, config.goal_ahead, rng)
        return (torch.from_numpy(signals) - nets.signal_mean) / nets.signal_std, torch.from_numpy(mask)

    optimiser = torch.optim.AdamW(denoiser.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps, 1e-5)
    parts = {"denoiser": denoiser, "average": average, "optimiser": optimiser, "schedule": schedule}
    meta = {"config": sizes.to_dict()}
    first = world_model.resume(folder / "prior.pt", parts, rng, meta)
    bar = tqdm(range(first, config.steps), initial=first, total=config.steps, desc="prior", mininterval=5)
    for step in bar:
        at, row = rng.choice(windows, config.batch), rng.integers(len(drawn), size=config.batch)
        views = drawn[row, at]
        past = latents[row[:, None], at[:, None] + span]
        loss = _flow_loss(denoiser, past, _actions(frames, at, views, sizes, spec), *goals(frames, at, views))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        decay = min(config.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            for target, source in zip(average.parameters(), denoiser.parameters(), strict=True):
                target.lerp_(source, 1 - decay)
        if (step + 1) % 50 == 0:
            bar.set_postfix(loss=f"{float(loss):.4f}")
        if (step + 1) % config.evaluate_every == 0 or step + 1 == config.steps:
            with torch.no_grad():
                at, views = rng.choice(held_windows, 4096), np.zeros(4096, np.int64)
                past, actions = held_latents[at[:, None] + span], _actions(held, at, views, sizes, spec)
                held_loss = float(_flow_loss(average, past, actions, *goals(held, at, views)))
            tqdm.write(f"prior {step + 1}: held-out flow loss {held_loss:.4f}")
            metrics = {"data_sha256": store.sha256(), "train": asdict(config), "held_out_flow_loss": held_loss}
            metrics |= {"episodes": len(held_index), "step": step + 1}
            (folder / "metrics.json").write_text(json.dumps(metrics, indent=2))
            world_model.save_checkpoint(folder / "prior.pt", parts, rng, meta, step + 1)
    return average


def hindsight(
    frames: Frames, present: npt.NDArray[np.int64], views: npt.NDArray[np.int64], ahead: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Goals that were reached: the signals up to `ahead` control steps later in the same episode, and what of them is
    asked for; both of shape (B, S).

    Args:
        frames: episodes.
        present: frames of shape (B,) before which a goal is unknown.
        views: in which each is seen, of shape (B,).
    """
    end = frames.starts[np.searchsorted(frames.starts, present, side="right")] - 1  # each episode's last frame
    later = np.minimum(present + rng.integers(1, ahead + 1, len(present)), end)
    entities = [name.split("_")[0] for name in frames.names]
    kinds = sorted(set(entities))
    asked = (rng.random((len(present), len(kinds))) < 0.65) & (rng.random((len(present), 1)) > 0.25)
    mask = asked[:, [kinds.index(entity) for entity in entities]]
    return frames.measured(later[:, None], views)[:, 0], mask.astype(np.float32)


def load(folder: Path) -> Denoiser:
    """The averaged denoiser of a checkpoint folder, in evaluation mode."""
    path = folder / "prior.pt"
    if not path.exists():
        raise InvalidInput(f"{path} is missing; run `worldpilot train action-prior` first")
    state = torch.load(path, weights_only=True)
    denoiser = Denoiser(PriorConfig(**state["config"]))
    denoiser.load_state_dict(state["average"])
    return denoiser.eval()


def _actions(frames: Frames, at: np.ndarray, views: np.ndarray, sizes: PriorConfig, spec: ActionSpec) -> Tensor:
    """What followed the histories of the windows that begin at `at` (B,), in their views (B,): (B, H, A)."""
    return torch.from_numpy(frames.actions(at + (sizes.history - 1) * spec.block, sizes.horizon, spec, views))


def _flow_loss(denoiser: Denoiser, past: Tensor, actions: Tensor, goal: Tensor | None, mask: Tensor | None) -> Tensor:
    """Rectified flow: at x = (1 - sigma) a + sigma n the velocity is n - a; sigma uniform on [0, 1]."""
    noise, sigma = torch.randn_like(actions), torch.rand(len(actions))
    mixed = torch.lerp(actions, noise, sigma[:, None, None])
    return (denoiser(mixed, sigma, past, goal, mask) - (noise - actions)).square().mean()
