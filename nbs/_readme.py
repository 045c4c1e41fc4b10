"Write README.md from index.ipynb: its markdown as it is, its code with the outputs that it has; and its pictures."
from base64 import b64decode
from pathlib import Path
from fastcore.nbio import read_nb

nbs = Path(__file__).parent

def output(o):
    "A cell's output as a reader of plain markdown can see it"
    text = ''.join(o['text'] if 'text' in o else o['data'].get('text/markdown') or o['data'].get('text/plain', ''))
    return text if 'text/markdown' in o.get('data', {}) else f"```\n{text.rstrip()}\n```"

def cell(c):
    if c.cell_type == 'markdown': return c.source.removeprefix('#| export\n')
    if c.source.startswith('#| hide'): return None
    shown = [] if c.source.startswith('#| echo: false') else [f"```python\n{c.source}\n```"]
    return '\n\n'.join(shown+[output(o) for o in c.outputs])

def readme(): return '\n\n'.join(o for o in map(cell, read_nb(nbs/'index.ipynb').cells) if o) + '\n'

pictures = {'study.png': 'study', 'smoothers/gallery.png': 'smoothers/06_gallery'} # file: the notebook that shows it

def picture(name):
    "The first picture that a notebook shows, as PNG"
    outputs = (o for c in read_nb(nbs/f'{name}.ipynb').cells for o in c.get('outputs', []))
    return b64decode(next(''.join(o['data']['image/png']) for o in outputs if 'image/png' in o.get('data', {})))

if __name__ == '__main__':
    (nbs.parent/'README.md').write_text(readme(), encoding='utf-8')
    for file,name in pictures.items(): (nbs/file).write_bytes(picture(name))
