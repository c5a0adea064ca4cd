"""Train the action prior: a denoiser of action sequences, given the history's latents (D-MPC, 2410.05364).

By flow matching, unless another sampler is asked for. In the latents of images it is conditioned on goals in hindsight:
what the episode's signals were some time later is, for the actions before, a goal that was reached. Entities (the words
before the first underscore of the signals' names) are asked for at random, and in a quarter of the windows none is.
"""

import copy
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from worldpilot.errors import InvalidInput
from worldpilot.models import samplers
from worldpilot.models.action_prior.networks import Denoiser, PriorConfig
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.models.data.windows import Frames
from worldpilot.models.dynamics import train as dynamics
from worldpilot.models.world_model import train as world_model
from worldpilot.models.world_model.train import WorldModelNets
from worldpilot.types import ActionSpec, FloatArray


@dataclass(frozen=True)
class PriorTrainConfig:
    """How a prior is trained."""

    steps: int = 8000
    batch: int = 512
    horizon: int = 5  # model steps
    hidden: int = 512
    sampler: str = "flow"
    sampler_steps: int = 6
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    ema: float = 0.999
    views: int = 1  # of each episode of images, if the task has symmetries; states are seen in all there are
    goal_ahead: int = 75  # a goal lies up to so many control steps ahead; 0: no goals
    evaluate_every: int = 1000
    seed: int = 0
    accelerator: str = "auto"  # a GPU if there is one

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.horizon, self.evaluate_every) < 1 or not 0 <= self.ema < 1:
            raise InvalidInput("prior: steps, batch, horizon, evaluate_every must be >= 1 and 0 <= ema < 1")


class Sampler(nn.Module):
    """The denoiser under its sampler, unrolled: one graph, noise in, actions out."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.sampler = samplers.sampler(denoiser.config.sampler, denoiser.config.sampler_steps, clip=1.0)

    def forward(self, latents: Tensor, noise: Tensor, goal: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Latents (B, h, D), noise (B, H, A), goal and mask (B, S) to normalised actions (B, H, A) in [-1, 1]."""
        return self.sampler(lambda noisy, times: self.denoiser(noisy, times, latents, goal, mask), noise)


def for_latents(encoder: Path) -> PriorTrainConfig:
    """Defaults for the latents of a checkpoint folder; for those of states no goals, the predictor's horizon, and sizes
    that leave the planner most of a control period."""
    if not dynamics.is_dynamics(encoder):
        return PriorTrainConfig()
    return PriorTrainConfig(horizon=dynamics.load(encoder).config.horizon, hidden=384, goal_ahead=0, sampler_steps=4)


def train_prior(
    store: EpisodeStore,
    spec: ActionSpec,
    encoder: Path,
    folder: Path,
    config: PriorTrainConfig,
    start: Path | None = None,
) -> Denoiser:
    """Train on the store's training episodes, in the latents of the checkpoints in `encoder`; resumes.

    Args:
        store: episodes.
        spec: of the actions.
        encoder: checkpoints of a world model of images, or of dynamics of states.
        folder: of checkpoint and metrics.
        config: how.
        start: checkpoints of a prior in the same latents to go on from, its sizes kept; None: begin anew.

    Raises:
        InvalidInput: goals are asked for in the latents of states, or a GPU where there is none.
    """
    device = world_model.device_of(config.accelerator)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    train_index, held_index = store.split()
    of_states = dynamics.is_dynamics(encoder)
    before = (dynamics.load(encoder).config.history - 1) * spec.block if of_states else 0
    frames, held = Frames.load(store, train_index, before), Frames.load(store, held_index, before)
    if of_states:
        if config.goal_ahead:
            raise InvalidInput("prior: a prior in the latents of states takes no goals; set goal_ahead to 0")
        nets = dynamics.load(encoder).to(device)
        frames = frames.in_every_view(nets.state["names"])
        drawn = np.zeros((1, len(frames.observations)), np.int64)
        latents, held_latents = nets.encode(frames.observations).unsqueeze(0), nets.encode(held.observations)
    else:
        nets = world_model.load(encoder).to(device)
        drawn = frames.draw_views(config.views, np.random.default_rng([config.seed, 4]))
        latents = world_model.encode_views(nets, frames, drawn)
        held_latents = world_model.encode_all(nets, held.observations)  # as they are
    sizes = PriorConfig(
        latent_dim=nets.config.latent_dim,
        history=nets.config.history,
        horizon=config.horizon,
        action_dim=spec.dim,
        hidden=config.hidden,
        sampler_steps=config.sampler_steps,
        goal_dim=len(frames.names) if config.goal_ahead else 0,
        reads=bool(config.goal_ahead and len(frames.names)),
        sampler=config.sampler,
    )
    denoiser = (Denoiser(sizes) if start is None else load(start).train()).to(device)
    if denoiser.readout is not None and start is None and isinstance(nets, WorldModelNets):
        denoiser.readout.load_state_dict(nets.readout.state_dict())
    sizes = denoiser.config
    average = copy.deepcopy(denoiser).requires_grad_(False)
    windows, held_windows = (f.windows(sizes.history - 1 + sizes.horizon, spec.block) for f in (frames, held))
    rng = np.random.default_rng([config.seed, 3])
    span = np.arange(sizes.history) * spec.block  # from a window's first frame to each of its history, and
    now = span[-1]  # to its present

    def goals(source: Frames, at: np.ndarray, views: np.ndarray) -> tuple[Tensor | None, Tensor | None]:
        if not isinstance(nets, WorldModelNets) or not sizes.goal_dim:
            return None, None
        signals, mask = hindsight(source, at + now, views, config.goal_ahead, rng)
        return nets.standardise(signals), torch.from_numpy(mask).to(device)

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
        actions = _actions(frames, at, views, sizes, spec).to(device)
        loss = _loss(denoiser, past, actions, *goals(frames, at, views))
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
            bar.set_postfix(loss=f"{loss.item():.4f}")
        if (step + 1) % config.evaluate_every == 0 or step + 1 == config.steps:
            with torch.no_grad():
                at, views = rng.choice(held_windows, 4096), np.zeros(4096, np.int64)
                past, actions = held_latents[at[:, None] + span], _actions(held, at, views, sizes, spec).to(device)
                held_loss = float(_loss(average, past, actions, *goals(held, at, views)))
            tqdm.write(f"prior {step + 1}: held-out loss {held_loss:.4f}")
            metrics = {"data_sha256": store.sha256(), "train": asdict(config), "held_out_flow_loss": held_loss}
            metrics |= {"episodes": len(held_index), "step": step + 1}
            (folder / "metrics.json").write_text(json.dumps(metrics, indent=2))
            world_model.save_checkpoint(folder / "prior.pt", parts, rng, meta, step + 1)
    return average.cpu()


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


def load(folder: Path, sampler: str | None = None, sampler_steps: int | None = None) -> Denoiser:
    """The averaged denoiser of a checkpoint folder, in evaluation mode.

    Args:
        folder: checkpoints of `train action-prior`.
        sampler: another one than that of the training; DDIM and DPM-Solver++ may be exchanged.
        sampler_steps: other than those of the training.

    Raises:
        InvalidInput: no checkpoint there, or a sampler that asks what the denoiser was not trained to say.
    """
    path = folder / "prior.pt"
    if not path.exists():
        raise InvalidInput(f"{path} is missing; run `worldpilot train action-prior` first")
    state = torch.load(path, map_location="cpu", weights_only=True)
    trained = PriorConfig(**state["config"])
    config = replace(trained, sampler=sampler or trained.sampler, sampler_steps=sampler_steps or trained.sampler_steps)
    if not samplers.exchangeable(trained.sampler, config.sampler):
        raise InvalidInput(f"{path} was trained for {trained.sampler}, and cannot be sampled by {sampler}; train anew")
    denoiser = Denoiser(config)
    denoiser.load_state_dict(state["average"])
    return denoiser.eval()


def _actions(frames: Frames, at: np.ndarray, views: np.ndarray, sizes: PriorConfig, spec: ActionSpec) -> Tensor:
    """What followed the histories of the windows that begin at `at` (B,), in their views (B,): (B, H, A)."""
    return torch.from_numpy(frames.actions(at + (sizes.history - 1) * spec.block, sizes.horizon, spec, views))


def _loss(denoiser: Denoiser, past: Tensor, actions: Tensor, goal: Tensor | None, mask: Tensor | None) -> Tensor:
    """Mean squared error of what the denoiser says to noisy actions, at levels of noise drawn at random."""
    noise, uniform = torch.randn_like(actions), torch.rand(len(actions), device=actions.device)
    noisy, times, target = samplers.corrupt(denoiser.config.sampler, actions, noise, uniform)
    return (denoiser(noisy, times, past, goal, mask) - target).square().mean()
