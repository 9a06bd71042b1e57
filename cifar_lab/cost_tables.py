"""What `cifar-lab cost` and `cifar-lab bench` print for people: counts, layers, speed and memory as tables."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from cifar_lab.display import LabConsole

_MIB = 2**20
_WIDTH = 120  # characters


def show_cost(cost: Mapping[str, Any]) -> None:
    """All that was measured of a model."""
    console = _console()

    def line(text: str = "") -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if "layers" in cost:
        console.print(_layers(cost))
        line()
    line(f"{cost['model']} for {cost['num_classes']} classes, {cost['input_size']} x {cost['input_size']} px")
    line(f"  parameters    {cost['num_params_trainable']:,} trainable, {cost['num_params']:,} in all")
    line(f"                {cost['num_params_keras']:,} as Keras counts: with the mean and variance of each batch norm")
    line(f"  one image     {_millions(cost['macs'])} MACs (multiply-adds), {_millions(cost['flops'])} FLOPs (twice as many)")
    counted = ", ".join(f"{name} {_millions(macs)}" for name, macs in cost["macs_by_operator"].items())
    line(f"                of these {counted}")
    line(f"  not counted   {_uncounted(cost)}")
    line(f"  on disk       {cost['size_bytes']:,} bytes ({cost['size_bytes'] / _MIB:.2f} MiB) as safetensors")
    if "run" in cost:
        line(f"  its run       {_run(cost['run'])}")
    if "conditions" in cost:
        _show_timing(console, cost)


def _show_timing(console: LabConsole, cost: Mapping[str, Any]) -> None:
    where, memory = cost["conditions"], cost["memory"]
    layout = "channels last" if where["channels_last"] else "channels first"
    text = f"\nOn {_machine(where)}, {where['precision']}, {layout}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    table = _table("Latency of one call", "batch size", "clock", "p50 ms", "p90 ms", "p99 ms", "calls", "warm-up calls")
    for name, found in cost["latency"].items():
        for clock, key in (("call, by the host", "call_ms"), ("device, by CUDA events", "device_ms")):
            if found[key] is not None:
                times = [f"{found[key][q]:,.3f}" for q in ("p50", "p90", "p99")]
                calls = f"{found['calls']}{' (time limit)' if found['capped'] else ''}"
                warm = f"{found['warmup_calls']}{'' if found['stable'] else ', not steady'}"
                table.add_row(name.removeprefix("batch_"), clock, *times, calls, warm)
    console.print(table)
    table = _table("Answering, calls back to back", "batch size", "images/s", "lowest", "highest")
    for row in cost["throughput"]:
        rates = [f"{row[key]:,.0f}" for key in ("images_per_s", "low", "high")]
        table.add_row(f"{row['batch_size']:,}", *rates)
    console.print(table)
    table = _table("Peak memory", "of", "batch size", "MiB", "of it held before", "by")
    for name, found in memory.items():
        if found is None:
            table.add_row(name, "", "not measured", "", "this device keeps no books of its allocations")
            continue
        what = f"a training step ({found['optimizer']})" if name == "training" else "answering"
        table.add_row(what, f"{found['batch_size']:,}", f"{found['peak_mib']:,.1f}", f"{found['held_mib']:,.1f}", found["method"])
    console.print(table)


def show_bench(found: Mapping[str, Any]) -> None:
    """Images per second of every variant, and the one to use."""
    console = _console()
    title = f"Training {found['model']} with {found['optimizer']}, augment={found['augment']}, {found['input_size']} px"
    table = _table(title, "precision", "layout", "batch size", "images/s", "lowest", "highest", "repetitions")
    best = found["winner"]
    for row in found["rows"]:
        layout = "channels last" if row["channels_last"] else "channels first"
        rates = [f"{row[key]:,.0f}" for key in ("images_per_s", "low", "high")] if row["repetitions"] else [row["note"], "", ""]
        style = "bold" if best is not None and row["overrides"] == best["overrides"] else ""
        table.add_row(row["precision"], layout, f"{row['batch_size']:,}", *rates, str(row["repetitions"]), style=style)
    console.print(table)
    lines = [f"on {_machine(found['conditions'])}"]
    lines += [f"skipped {name}: {why} (--all measures it)" for name, why in found["skipped"].items()]
    for what, row in (("fastest", best), ("fastest at the batch size of the configuration", found["winner_at_batch_size"])):
        if row is not None:
            clear = "" if row["clear"] else ", within the spread of another one"
            lines.append(f"{what}: {row['images_per_s']:,.0f} images/s{clear}\n  {row['overrides']}")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _console() -> LabConsole:
    """Wide enough for every table: a number that is cut in two cannot be read."""
    console = LabConsole()
    console.width = max(console.width, _WIDTH)
    return console


def _machine(where: Mapping[str, Any]) -> str:
    """The device, and how much of it the measurement had."""
    if where["device"] != "cpu":
        return f"{where['device']} ({where['device_name']})"
    load = "" if where["load"] is None else f", load {where['load']:.1f}"
    threads = f"{where['threads']} thread{'s' if where['threads'] > 1 else ''}"
    return f"cpu ({where['device_name']}, {threads} on {where['cpu_count']} cores{load})"


def _run(run: Mapping[str, Any]) -> str:
    """What the run itself measured."""
    parts = [f"{run['folder']} on {run['device']}"]
    if run["train_s"]:
        parts.append(f"trained {run['train_s']:,.0f} s at {run['images_per_s']:,.0f} images/s")
    if run["peak_memory_mib"]:
        parts.append(f"peak memory {run['peak_memory_mib']:,.0f} MiB, everything included")
    return ", ".join(parts)


def _layers(cost: Mapping[str, Any]) -> Table:
    """The layers of a network, and their sum."""
    table = _table("Layers", "name", "kind", "output shape", "parameters", "MACs", "activations KiB")
    for row in cost["layers"]:
        shape = " x ".join(map(str, row["output_shape"][1:])) if row["output_shape"] else ""
        numbers = (f"{row['num_params']:,}", f"{row['macs']:,}", f"{row['activation_bytes'] / 1024:,.1f}")
        table.add_row(row["name"] or "(itself)", row["kind"], shape, *numbers)
    total = cost["layer_totals"]
    numbers = (f"{total['num_params']:,}", f"{total['macs']:,}", f"{total['activation_bytes'] / 1024:,.1f}")
    table.add_section()
    table.add_row("total", "", "", *numbers, style="bold")
    return table


def _table(title: str, *columns: str) -> Table:
    """Words to the left, numbers to the right; a name is never shortened."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    words = ("name", "kind", "clock", "of", "by", "precision", "layout")
    for name in columns:
        table.add_column(name, justify="left" if name in words else "right", overflow="fold")
    return table


def _uncounted(cost: Mapping[str, Any]) -> str:
    """Operators that have no multiply-adds in our count, and how often each is called."""
    found = cost["uncounted_operators"]
    return ", ".join(f"{name.removeprefix('aten::')} ({calls})" for name, calls in found.items()) or "nothing"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f} M"
