"""The tables of speed and memory, from result files written by hand."""

import json

from experiments.speed_tables import (
    compiled_table,
    contestants_tables,
    cost_table,
    resident_table,
    speed_table,
)


def written(folder, **content):
    path = folder / "result.json"
    path.write_text(json.dumps(content))
    return path


def cells_of(table):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def measured(speed, compiling, resident, **own):
    return {
        **{"tasks_per_second": speed, "compile_seconds": compiling},
        **{"resident_bytes": resident * 2**20, **own},
    }


def a_row(**changes):
    rivals = {
        "jaxmeta": measured(1000.0, 3.25, 700, seconds_to_1000_updates=28.25),
        "torch_loop": measured(250.0, 0.5, 400, seconds_to_1000_updates=100.5),
        "torch_compile_vmap": {"failed": "no answer within 10 minutes"},
    }
    return {
        **{"name": "small", "tasks_per_second": 1000.0, "contestants": rivals},
        **{"ratio_to_best_peer": 4.0, "ratio_to_best_torch": 4.0, "compile_seconds": 3.25},
        **{"cached_compile_seconds": None, "fraction_of_matmul_peak": 0.125, **changes},
    }


def test_speed_relative_to_each_contestant(tmp_path):
    header, _, cells = cells_of(speed_table(written(tmp_path, workloads=[a_row()])))
    assert dict(zip(header, cells)) == {
        "workload": "small",
        "jaxmeta": "1,000.0",
        "PyTorch, loop": "250.0 (4.00 ×)",
        "PyTorch, vmap": "–",
        "PyTorch, compiled, loop": "–",
        "PyTorch, compiled, vmap": "no answer within 10 minutes",
        "plain JAX": "–",
        "jaxmeta ÷ best PyTorch": "4.00",
    }


def test_what_each_contestant_takes(tmp_path):
    evaluated = {"jaxmeta": measured(10.0, 2.0, 600), "torch_loop": measured(5.0, 0.0, 300)}
    rows = [a_row(), a_row(name="evaluation", contestants=evaluated)]
    found = contestants_tables(written(tmp_path, workloads=rows))
    compiling, waiting, memory = _three(found)
    assert [row[1:3] for row in compiling] == [["3.2", "0.5"], ["2.0", "0.0"]]
    assert [row[:3] for row in waiting] == [["small", "28", "100"]]  # an evaluation has no updates
    assert [row[1:3] for row in memory] == [["700", "400"], ["600", "300"]]
    assert compiling[0][-2] == "–"


def _three(text):
    """The rows of three tables, without their heads."""
    tables = [part for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables) == 3
    return [cells_of(table)[2:] for table in tables]


def test_files_from_before_contestants_were_compiled(tmp_path):
    old = a_row(peers={"torch_loop": 250.0})
    del old["contestants"]
    path = written(tmp_path, workloads=[old])
    assert cells_of(speed_table(path))[2][1:4] == ["1,000.0", "250.0 (4.00 ×)", "–"]
    assert contestants_tables(path) == ""


def test_costs(tmp_path):
    _, _, cells = cells_of(cost_table(written(tmp_path, workloads=[a_row()])))
    assert cells == ["small", "4.00", "12 %", "3.2 s", "–"]


def test_compiled_programs(tmp_path):
    counts = {"all": 1500, "fusion": 100, "dot": 20, "while": 4, "copy": 50}
    own = {"instructions": counts, "flops": 2e6, "temporary_bytes": 3 * 2**19}
    _, _, cells = cells_of(compiled_table(written(tmp_path, programs={"small": own})))
    assert cells == ["small", "1,500", "100", "20", "4", "50", "2", "1.5"]


def test_resident_memory(tmp_path):
    path = written(
        tmp_path,
        peak_bytes={"few-shot": 900 * 2**20},
        bytes_after_updates={str(2000 * n): (500 + n) * 2**20 for n in range(1, 11)},
    )
    assert cells_of(resident_table(path))[2:] == [
        ["`few-shot`, peak", "900"],
        ["`regression`, after 2,000 updates", "501"],
        ["`regression`, after 4,000 updates", "502"],
        ["`regression`, after 10,000 updates", "505"],
        ["`regression`, after 20,000 updates", "510"],
    ]
