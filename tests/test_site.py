"The site builds strictly, leaves out no page and no name, needs no network, and fits a phone"
import importlib, json, os, re, shutil, sys, threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import pytest, yaml
from fastai_labelsmooth._modidx import d as modidx
from helpers import run_process

pytest.importorskip('zensical', reason="Zensical needs Python 3.11")
root = Path(__file__).parent.parent
cell = {'cell_type': 'markdown', 'id': 'a', 'metadata': {}, 'source': '# A new guide\n\n> Not in the sidebar yet'}
guide = {'cells': [cell], 'metadata': {}, 'nbformat': 4, 'nbformat_minor': 5}

@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "A copy of what the site is made of, with one more guide, and the site made there"
    path = tmp_path_factory.mktemp('site')
    for o in ('nbs', 'fastai_labelsmooth', 'benchmarks'):
        shutil.copytree(root/o, path/o, ignore=shutil.ignore_patterns('__pycache__', 'models', 'nbdev.yml'))
    for o in ('pyproject.toml', 'settings.ini', 'mkdocs.yml'): shutil.copy(root/o, path)
    (path/'nbs/guides').mkdir(exist_ok=True)
    (path/'nbs/guides/zz_new.ipynb').write_text(json.dumps(guide))
    env = {**os.environ, 'PYTHONPATH': str(path), 'OMP_NUM_THREADS': '1'}
    printed = run_process([sys.executable, 'nbs/_site.py'], 300, cwd=path, env=env)
    printed = re.sub(r'\x1b\[[\d;]*m', '', printed) # without colours
    assert 'No issues found' in printed and 'warning' not in printed.lower(), printed
    return path

@pytest.fixture(scope='module')
def site(built): return built/'_docs'

class Page(HTMLParser):
    "The ids of a page, and what its tags refer to"
    def __init__(self, path):
        super().__init__()
        self.ids,self.refs,self.nav,self.in_nav = set(),[],[],0
        self.feed(path.read_text(encoding='utf-8'))
    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.add(attrs.get('id'))
        self.in_nav += tag == 'nav'
        self.refs += [(tag, attrs[o]) for o in ('src', 'href') if attrs.get(o)]
        if self.in_nav and tag == 'a': self.nav.append(attrs.get('href'))
    def handle_endtag(self, tag): self.in_nav -= tag == 'nav'

@pytest.fixture(scope='module')
def pages(site): return {p.relative_to(site).as_posix(): Page(p) for p in site.rglob('*.html')}

def notebooks(path):
    "The notebooks that become pages: none of a name that begins with _ or ."
    found = [p.relative_to(path) for p in sorted(path.rglob('*.ipynb'))]
    return [p for p in found if not re.search(r'(^|/)[_.]', p.as_posix())]

def html_of(notebook): return notebook.with_name(re.sub(r'^\d+_', '', notebook.stem)+'.html').as_posix()

def test_no_notebook_is_missing(built, pages):
    names = [html_of(o) for o in notebooks(built/'nbs')]
    assert len(names) > 30
    nav = [os.path.normpath(o) for o in pages['index.html'].nav]
    for o in names: assert o in pages and o in nav, f'{o} is not on the site, or not in its navigation'

def test_the_sidebar_says_the_order(built):
    listed = re.findall(r'(\S+)\.ipynb', (root/'nbs/sidebar.yml').read_text())
    order = re.findall(r'(\S+)\.md', (built/'_proc/mkdocs.yml').read_text())
    there = [html_of(Path(o+'.ipynb'))[:-5] for o in listed if (built/f'nbs/{o}.ipynb').exists()]
    assert [o for o in order if o in there] == there
    missing = [o for o in listed if not (root/f'nbs/{o}.ipynb').exists()]
    assert not missing, f'{missing} are listed but not there'
    nav = yaml.safe_load((built/'_proc/mkdocs.yml').read_text())['nav']
    guides, = [o['Guides'] for o in nav if 'Guides' in o]
    assert guides[-1] == 'guides/zz_new.md', "a guide that the sidebar does not list comes last"

def public_names():
    "Where nbdev says that each public name is documented"
    for module,syms in modidx['syms'].items():
        exported = importlib.import_module(module).__all__
        for sym,(loc,_) in syms.items():
            name = sym.removeprefix(module+'.')
            owner,_,method = name.rpartition('.')
            patched = owner and f'{module}.{owner}' not in syms and method[0] != '_' # into a class of another module
            if name in exported or patched: yield loc

def test_every_public_name_has_an_entry(pages):
    locs = list(public_names())
    assert len(locs) > 50 and 'interpret/predictions.html#learner.topk' in locs
    for loc in locs:
        page,_,anchor = loc.partition('#')
        assert anchor in pages[page].ids, loc

def test_entries_are_for_readers(pages):
    for k,p in pages.items():
        assert not [o for o in p.ids if '__' in (o or '')[2:]], f'{k} has an entry for a dunder method'

def test_nothing_comes_from_elsewhere(site, pages):
    for k,p in pages.items():
        for tag,url in p.refs: assert tag == 'a' or not re.match(r'(https?:)?//', url), f'{k}: <{tag}> {url}'
    for p in site.rglob('*.css'): assert not re.search(r'(@import|url\()[\s"\']*(https?:)?//', p.read_text()), p

def test_what_pages_and_llms_txt_refer_to_is_there(site, pages):
    for k,p in pages.items():
        if k == '404.html': continue # its links are from the root of a server
        for _,url in p.refs:
            path = url.partition('#')[0]
            if path and ':' not in path: assert ((site/k).parent/path).exists(), f'{k}: {url}'
    for text in [*site.rglob('*.md'), site/'llms.txt']:
        linked = re.sub(r'(?s)```.*?```|`[^`\n]+`', '', text.read_text(encoding='utf-8'))
        for url in re.findall(r'\]\(([^)#\s]+)[^)]*\)', linked):
            if ':' not in url: assert (text.parent/url).exists(), f'{text}: {url}'

def test_links_out_of_the_notebooks_lead_to_the_benchmarks_too(pages):
    for o in ('index.html', 'losses.html', 'smoothers/core.html'):
        assert any(kind == 'a' and to.endswith('benchmarks/index.html') for kind,to in pages[o].refs), o

def test_llms_txt_says_what_each_page_is_about(site, built):
    text = (site/'llms.txt').read_text(encoding='utf-8')
    assert text.startswith('# fastai_labelsmooth\n\n> For fastai: find wrong labels')
    assert 'One callback serves each of them' in text
    for o in notebooks(built/'nbs'): assert f"({html_of(o).replace('.html', '.md')}): " in text, o

# In a browser

@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    webdriver = pytest.importorskip('selenium.webdriver')
    chromium = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    driver = shutil.which('chromedriver')
    if not chromium or not driver:
        pytest.skip("needs Chromium and its chromedriver (on Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for o in ('headless', 'no-sandbox', 'disable-gpu', 'no-first-run', 'disable-background-networking', 'disable-sync',
              'disable-component-update', f"user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(f'--{o}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    res = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    res.set_page_load_timeout(60)
    yield res
    res.quit()

@pytest.fixture(scope='module')
def url(site):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()

measure = '''const root = document.documentElement
return [root.scrollWidth - root.clientWidth, performance.getEntriesByType('resource').map(o => o.name)]'''

@pytest.mark.parametrize('width', [400, 1300])
def test_pages_fit_the_screen_without_errors(browser, url, pages, width):
    screen = dict(width=width, height=900, deviceScaleFactor=1, mobile=False)
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', screen)
    wrong = []
    for page in sorted(pages):
        try: browser.get(url+page)
        except Exception as e: pytest.fail(f'{page} did not load: {e}')
        too_wide,loaded = browser.execute_script(measure)
        if too_wide > 0: wrong.append(f'{page} scrolls {too_wide} pixels to the side')
        wrong += [f'{page} loads {o}' for o in loaded if not o.startswith(url)]
        wrong += [f"{page}: {o['message']}" for o in browser.get_log('browser') if o['level'] in ('SEVERE', 'WARNING')]
    assert not wrong
