"Build the site into _docs/: nbdev's processed notebooks as Markdown pages, and Zensical's HTML of those"
import os, re, shutil, subprocess, sys
from base64 import b64decode
from configparser import ConfigParser
from pathlib import Path
import yaml
from fastcore.nbio import read_nb
from latex2mathml.converter import convert
from nbdev.config import nbpath2html, pkg_llms
from nbdev.serve import proc_nbs

root = Path(__file__).resolve().parent.parent
fence,code = r'(?ms)(^```.*?^```$)',r'(?ms)(^```.*?^```$|`[^`\n]+`)'

def outside(pattern, f, md):
    "`md` with `f` of what lies between the matches of `pattern`, which has one group"
    parts = re.split(pattern, md)
    parts[::2] = map(f, parts[::2])
    return ''.join(parts)

def formulas(md):
    "LaTeX as MathML, which browsers draw without a script"
    def mathml(tex, display): return convert(tex.replace(r'\log ', r'\log\,'), display=display) # it sets no space there
    def block(m): return f'\n\n<div class="formula">{mathml(m[1], "block")}</div>\n\n'
    md = re.sub(r'\$\$(.+?)\$\$', block, md, flags=re.S)
    return re.sub(r'\$([^$\n]+)\$', lambda m: mathml(m[1], 'inline'), md)

def page_of(notebook): return nbpath2html(Path(notebook)).with_suffix('.md').as_posix()

def links(md, page, known):
    "Links to notebooks as links to pages; of a link to what the site has not, the text"
    folder,by_nbdev = Path(page).parent,r'\[(`[^`]+`)\]\(/\S+?\)'
    def link(m):
        text,(url,hash_,anchor) = re.sub(by_nbdev, r'\1', m[1]),m[2].partition('#') # it links names inside of links too,
        to = url.rpartition('nbs/')[2] if 'nbs/' in url else os.path.normpath(folder/url).lstrip('/').removeprefix('../')
        to = page_of(to) if to.endswith('.ipynb') else to.replace('.html', '.md')
        sought = f'{to}#{anchor}' if url.startswith('/') else to # and names that have no entry,
        if sought in known: return f'[{text}]({os.path.relpath(to, folder)}{hash_}{anchor})'
        return m[0] if not url or ':' in url or url.endswith('.png') else text
    def relinked(s):
        s = re.sub(r'(?m)^#.*', lambda m: re.sub(by_nbdev, r'\1', m[0]), s) # and in headings
        return re.sub(rf'\[((?:[^\[\]]|{by_nbdev.replace("(`", "(?:`")})+)\]\(([^)\s]+)\)', link, s)
    return outside(fence, relinked, md)

def entry(md):
    "What `show_doc` says of a name, with the anchor that nbdev links to, and types without their modules"
    name = re.search(r'^### (\S+)', md, re.M)[1]
    _,signature,doc = re.split(r'(```python.*?```)', md, maxsplit=1, flags=re.S)
    signature = re.sub(r'\b(?:__main__|fastai_labelsmooth)(?:\.\w+)*\.(?=\w)', '', signature).replace(':NoneType=', '=')
    if '(\n    *args, **kwargs\n)' in signature: signature = '' # of a tuple, a class that takes nothing: it would mislead
    return f'### `{name}` {{ #{name.lower()} .api }}\n\n{signature}{doc}'

def output(o, picture):
    "An output as a reader sees it; one that is a picture goes to that file"
    data = {k: ''.join(v) for k,v in o.get('data', {'text/plain': o.get('text', '')}).items()}
    if 'text/html' in data:
        table = re.sub(r'<style.*?</style>| (?:border|class|style)="[^"]*"', '', data['text/html'], flags=re.S)
        return f'<div class="output">\n{table}\n</div>'.replace('$', '&#36;') # money, not a formula
    if 'text/markdown' in data: return data['text/markdown']
    if 'image/png' in data:
        picture.write_bytes(b64decode(data['image/png']))
        return f"![{data['text/plain'].strip('<>')}]({picture.name})"
    return f"```{{ .text .output }}\n{data['text/plain'].rstrip()}\n```"

def cell(c, picture):
    source = re.sub(r'^#\|.*\n', '', c.source, flags=re.M) # directives
    if c.cell_type == 'markdown': return source
    shown = re.search(r'^show_doc\((.*)\)', c.source, re.M)
    if shown: return '' if '__' in shown[1] else entry(''.join(c.outputs[0].data['text/markdown']))
    shown = [] if '#| echo: false' in c.source else [f'```python\n{source}\n```']
    return '\n\n'.join(shown + [output(o, picture.with_stem(f'{picture.stem}{i}')) for i,o in enumerate(c.outputs)])

def page(nb, file):
    "Title, description and Markdown of a processed notebook; its pictures go beside `file`"
    front = yaml.safe_load(nb.cells[0].source.strip('-\n'))
    title,description = front['title'],front['description']
    cells = [cell(c, file.with_name(f'{file.stem}_{i}_.png')) for i,c in enumerate(nb.cells[2:])] # after nbdev's own two
    return title, description, '\n\n'.join([f'# {title}', f'{description}\n{{ .lead }}', *cells])

def nav(contents, left):
    "The pages in the order of nbs/sidebar.yml; a folder's others, taken out of `left`, follow those of it that are there"
    res = []
    for o in contents:
        if isinstance(o, str): res += [left.pop(left.index(page_of(o)))] if page_of(o) in left else []
        elif section := nav(o['contents'], left): res.append({o['section']: section})
    folders = {Path(o).parent for o in contents if isinstance(o, str)} - {Path('.')}
    others = [o for o in left if Path(o).parent in folders]
    for o in others: left.remove(o)
    return res + others

def flat(nav): return [p for o in nav for p in ([o] if isinstance(o, str) else flat(*o.values()))]

def llms(nav, pages, description):
    "nbdev's llms.txt (the paragraphs that nbs/index.ipynb exports), and what each page is about"
    def line(p): return f'- [{pages[p][0]}]({p}): {pages[p][1]}'
    sections = {'Pages': [o for o in nav if isinstance(o, str)]}
    for o in nav: sections |= o if isinstance(o, dict) else {}
    parts = [f'## {section}\n\n' + '\n'.join(map(line, flat(contents))) for section,contents in sections.items()]
    return '\n\n'.join([pkg_llms(desc=description).strip(), *parts]) + '\n'

def read_pages(work, md):
    "Title, description and text of each page by its name, with the links between them; their pictures lie in `md`"
    def other(folder, names): return [o for o in names if Path(folder, o).is_file() and Path(o).suffix not in ('.png', '.css')]
    shutil.copytree('nbs', md, ignore=other)
    shutil.copytree('benchmarks', md/'benchmarks', ignore=other)
    notebooks = {page_of(p.relative_to(work)): read_nb(p) for p in sorted(work.rglob('*.ipynb'))}
    res = {k: page(nb, md/k) for k,nb in notebooks.items()}
    benchmarks = Path('benchmarks/README.md').read_text(encoding='utf-8')
    res['benchmarks/README.md'] = 'Benchmarks', 'Speed and memory beside other losses', benchmarks
    entries = {f'{k}#{o}' for k,(_,_,text) in res.items() for o in re.findall(r' \{ #(\S+) \.api \}', text)}
    known = {p.relative_to(md).as_posix() for p in md.rglob('*.*')} | res.keys() | entries
    return {k: (title, description, links(text, k, known)) for k,(title,description,text) in res.items()}

def build():
    os.chdir(root)
    os.environ['PYTHONWARNINGS'] = 'ignore:Found cells containing imports' # nbdev's, of cells that may well be run
    work = proc_nbs(force=True)
    md,html = work/'_pages',work/'_site'
    pages = read_pages(work, md)
    for k,(title,description,text) in pages.items():
        front = yaml.dump(dict(title=title, description=description), allow_unicode=True)
        (md/k).write_text(f'---\n{front}---\n\n{outside(code, formulas, text)}', encoding='utf-8')
    sidebar,left = yaml.safe_load(Path('nbs/sidebar.yml').read_text(encoding='utf-8'))['website']['sidebar'],list(pages)
    order = nav(sidebar['contents'], left) + left
    ini = ConfigParser()
    ini.read('settings.ini', encoding='utf-8')
    name,description = (ini['DEFAULT'][o] for o in ('lib_name', 'description'))
    config = dict(INHERIT='../mkdocs.yml', site_name=name, site_description=description,
                  docs_dir=md.name, site_dir=html.name, nav=order)
    (work/'mkdocs.yml').write_text(yaml.dump(config), encoding='utf-8')
    zensical = Path(sys.executable).with_name('zensical')
    subprocess.run([zensical, 'build', '--strict', '--clean', '-f', work/'mkdocs.yml'], check=True, timeout=120)
    for k,(_,_,text) in pages.items(): (html/k).write_text(text, encoding='utf-8') # for readers of llms.txt
    (html/'llms.txt').write_text(llms(order, pages, description), encoding='utf-8')
    shutil.rmtree('_docs', ignore_errors=True)
    shutil.move(html, '_docs')

if __name__ == '__main__': build()
