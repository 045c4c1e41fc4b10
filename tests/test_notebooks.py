"What the pages show is what their code gives: saved text outputs against those of a fresh run"
import re
from pathlib import Path
import pytest
from execnb.shell import CaptureShell
from fastcore.nbio import read_nb

nbs = Path(__file__).parent.parent/'nbs'
# they train nothing, and are the same every time
quick = ['00_eps', '01_targets', '02_losses', '03_pairing', 'smoothers/00_core', 'smoothers/05_forward',
         'guides/how_it_works', 'guides/own_smoother']
number = re.compile(r'-?\d+\.?\d*(?:e-?\d+)?')

def texts(nb):
    "The text of each code cell's outputs, by its id"
    res = {}
    for c in nb.cells:
        if c.cell_type != 'code': continue
        shown = [''.join(o.get('data', {}).get('text/plain', o.get('text', ''))) for o in c.outputs]
        res[c.id] = [o.strip() for o in shown if not o.startswith('<Figure')]
    return res

@pytest.mark.parametrize('name', quick)
def test_saved_outputs_are_fresh(name):
    path = nbs/f'{name}.ipynb'
    saved,nb = texts(read_nb(path)),read_nb(path)
    shell = CaptureShell(path.parent)
    shell.run_all(nb, exc_stop=True)
    fresh = texts(nb)
    assert any(saved.values())
    for k in saved:
        for a,b in zip(saved[k], fresh[k], strict=True):
            assert number.sub('#', a) == number.sub('#', b), f'{name}, cell {k}: run `nbdev-test --save`'
            shown,got = ([float(o) for o in number.findall(text)] for text in (a, b))
            assert shown == pytest.approx(got, rel=1e-3, abs=1e-4), f'{name}, cell {k}'

@pytest.mark.parametrize('path', sorted(nbs.rglob('*.ipynb')), ids=lambda p: str(p.relative_to(nbs)))
def test_no_page_shows_a_warning_or_a_path(path):
    for k,shown in texts(read_nb(path)).items():
        for o in shown: assert 'site-packages' not in o and 'Warning' not in o, f'cell {k}: {o[:200]}'
