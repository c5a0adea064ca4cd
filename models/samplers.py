"""diffusers' samplers, unrolled: K evaluations of a denoiser become one graph, noise in, sample out.

Step sizes and noise levels are those of diffusers' schedulers; the updates are linear in what the denoiser said, so a
graph needs them as constants only. A denoiser of `flow` gives velocities (rectified flow), one of `ddim` and `dpmpp`
the noise (epsilon, cosine schedule): the latter two may be exchanged after the training.
"""

from collections.abc import Callable

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from worldpilot.errors import InvalidInput, UnknownName

Denoise = Callable[[Tensor, Tensor], Tensor]  # noisy (B, ...) and times (B,) in [0, 1] to velocities or noise (B, ...)

TIMES = 1000  # noise levels of the cosine schedule
COSINE = "squaredcos_cap_v2"


class FlowEuler(nn.Module):
    """Euler's method along a rectified flow."""

    sigmas: Tensor

    def __init__(self, steps: int, clip: float) -> None:
        super().__init__()
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(steps)
        self.steps, self.clip = steps, clip
        self.register_buffer("sigmas", torch.as_tensor(scheduler.sigmas, dtype=torch.float32).clone())

    def forward(self, denoise: Denoise, noise: Tensor) -> Tensor:
        x = noise
        for i in range(self.steps):
            x = x + (self.sigmas[i + 1] - self.sigmas[i]) * denoise(x, _times(self.sigmas[i], x))
        return x.clamp(-self.clip, self.clip)


class Ddim(nn.Module):
    """DDIM without noise of its own (2010.02502, eq. 12, eta = 0); clipping x0 does not change the noise."""

    times: Tensor
    alphas: Tensor

    def __init__(self, steps: int, clip: float) -> None:
        super().__init__()
        scheduler = DDIMScheduler(TIMES, beta_schedule=COSINE, timestep_spacing="trailing")
        scheduler.set_timesteps(steps)
        at = torch.as_tensor(scheduler.timesteps)
        kept = torch.cat([torch.as_tensor(scheduler.alphas_cumprod)[at], torch.ones(1)])
        self.steps, self.clip = steps, clip
        self.register_buffer("times", at / TIMES)
        self.register_buffer("alphas", kept.sqrt())  # of the data; that of the noise is sqrt(1 - alpha^2)

    def forward(self, denoise: Denoise, noise: Tensor) -> Tensor:
        x, sigmas = noise, (1 - self.alphas.square()).sqrt()
        for i in range(self.steps):
            said = denoise(x, _times(self.times[i], x))
            clean = ((x - sigmas[i] * said) / self.alphas[i]).clamp(-self.clip, self.clip)
            x = self.alphas[i + 1] * clean + sigmas[i + 1] * said
        return x.clamp(-self.clip, self.clip)


class DpmSolver(nn.Module):
    """DPM-Solver++(2M), midpoint (2211.01095, algorithm 2); first order at the first and the last step."""

    times: Tensor
    alphas: Tensor
    ratios: Tensor
    weights: Tensor
    slopes: Tensor

    def __init__(self, steps: int, clip: float) -> None:
        super().__init__()
        scheduler = DPMSolverMultistepScheduler(
            TIMES,
            beta_schedule=COSINE,
            timestep_spacing="trailing",
            lambda_min_clipped=-5.1,  # the cosine schedule's last noise levels hold no data to be found
        )
        scheduler.set_timesteps(steps)
        levels = torch.as_tensor(scheduler.sigmas, dtype=torch.float64)  # noise relative to data
        alphas = (1 + levels.square()).rsqrt()
        sigmas, log_snr = alphas * levels, -levels.log()  # lambda = log(alpha / sigma); infinite at the end
        gaps = log_snr.diff()
        slopes = torch.zeros(steps, dtype=torch.float64)
        slopes[1 : steps - 1] = gaps[1:-1] / gaps[:-2] / 2 if steps > 2 else slopes[1 : steps - 1]
        self.steps, self.clip = steps, clip
        self.register_buffer("times", torch.as_tensor(scheduler.timesteps) / TIMES)
        self.register_buffer("alphas", alphas.float())
        self.register_buffer("ratios", (sigmas[1:] / sigmas[:-1]).float())
        self.register_buffer("weights", (-alphas[1:] * torch.expm1(-gaps)).float())
        self.register_buffer("slopes", slopes.float())

    def forward(self, denoise: Denoise, noise: Tensor) -> Tensor:
        x, before = noise, torch.zeros_like(noise)
        for i in range(self.steps):
            said = denoise(x, _times(self.times[i], x))
            sigma = (1 - self.alphas[i].square()).sqrt()
            clean = ((x - sigma * said) / self.alphas[i]).clamp(-self.clip, self.clip)
            x = self.ratios[i] * x + self.weights[i] * (clean + self.slopes[i] * (clean - before))
            before = clean
        return x.clamp(-self.clip, self.clip)


SAMPLERS: dict[str, type[FlowEuler] | type[Ddim] | type[DpmSolver]] = {
    "flow": FlowEuler,
    "ddim": Ddim,
    "dpmpp": DpmSolver,
}


def check(name: str, steps: int) -> None:
    """Raises:
    UnknownName: no such sampler; the message lists those there are.
    InvalidInput: no step.
    """
    if name not in SAMPLERS:
        raise UnknownName("sampler", name, SAMPLERS)
    if steps < 1:
        raise InvalidInput(f"sampler: needs at least one step, got {steps}")


def sampler(name: str, steps: int, clip: float) -> nn.Module:
    """`forward(denoise, noise)` of shape (B, ...) samples in [-clip, clip], in `steps` evaluations of `denoise`."""
    check(name, steps)
    return SAMPLERS[name](steps, clip)


def exchangeable(trained: str, wanted: str) -> bool:
    """Whether a denoiser trained for one sampler says what another one asks."""
    return (trained == "flow") == (wanted == "flow")


def corrupt(name: str, clean: Tensor, noise: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a denoiser of a sampler is trained on.

    Args:
        name: of the sampler.
        clean: data of shape (B, ...).
        noise: standard normal, of the same shape.
        uniform: numbers of shape (B,) in [0, 1) that choose the noise levels.

    Returns:
        Noisy data (B, ...), times (B,), and what the denoiser should say to them (B, ...).
    """
    shape = (-1, *[1] * (clean.dim() - 1))
    if name == "flow":  # at x = (1 - sigma) a + sigma n the velocity is n - a
        return torch.lerp(clean, noise, uniform.view(shape)), uniform, noise - clean
    at = (uniform * TIMES).long()
    levels = torch.as_tensor(DDIMScheduler(TIMES, beta_schedule=COSINE).alphas_cumprod, device=clean.device)
    kept = levels[at].view(shape)
    return kept.sqrt() * clean + (1 - kept).sqrt() * noise, at / TIMES, noise


def _times(time: Tensor, x: Tensor) -> Tensor:
    """(B,), by a sum: len(x) would be burnt into the graph."""
    return time + torch.zeros_like(x.flatten(1)[:, 0])
