"What is released: source -> sdist -> wheel -> installed elsewhere, where it trains; and what an index shows of it"
import re, shutil, sys, sysconfig, tarfile, venv
from configparser import ConfigParser
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile
import pytest
from helpers import run_process

root = Path(__file__).parent.parent
python = 'Scripts/python.exe' if sys.platform == 'win32' else 'bin/python'

@pytest.fixture
def ini():
    o = ConfigParser()
    o.read(root/'settings.ini', encoding='utf-8')
    return o['DEFAULT']

@pytest.fixture(scope='module')
def dist(tmp_path_factory):
    "The sdist and the wheel made of it, from a copy of the files alone, as earlier builds leave an egg-info"
    src = tmp_path_factory.mktemp('src')
    for o in root.iterdir():
        if o.is_file(): shutil.copy(o, src)
    caches = shutil.ignore_patterns('__pycache__')
    for o in ('fastai_labelsmooth', 'tests'): shutil.copytree(root/o, src/o, ignore=caches)
    run_process([sys.executable, '-m', 'build', '--no-isolation', '-o', src/'dist', src], timeout=300, cwd=src)
    return next(src.glob('dist/*.tar.gz')),next(src.glob('dist/*.whl'))

@pytest.fixture(scope='module')
def elsewhere(dist, tmp_path_factory):
    "The Python of a new environment with the wheel, which sees this one's packages but not this checkout"
    env = tmp_path_factory.mktemp('elsewhere')
    venv.create(env)
    here,there = (sysconfig.get_path('purelib', vars=dict(base=o)) for o in (sys.prefix, str(env)))
    # what a .pth adds is not searched for other .pth files, and an editable install is one
    (Path(there)/'here.pth').write_text(here)
    with pytest.raises(AssertionError, match='No module named .fastai_labelsmooth'):
        run_process([env/python, '-I', '-c', 'import fastai_labelsmooth'], timeout=60, cwd=env)
    pip = [env/python, '-I', '-m', 'pip', 'install', '--no-index'] # what the wheel requires is there, or this fails
    run_process([*pip, dist[1]], timeout=120, cwd=env)
    return env/python

def modules(names): return sorted(o for o in names if o.startswith('fastai_labelsmooth/') and o.endswith('.py'))

def test_sdist_and_wheel_hold_every_module(dist):
    want = modules(p.relative_to(root).as_posix() for p in (root/'fastai_labelsmooth').rglob('*.py'))
    with tarfile.open(dist[0]) as f: sdist = [o.split('/', 1)[1] for o in f.getnames() if '/' in o]
    wheel = ZipFile(dist[1]).namelist()
    assert modules(sdist) == modules(wheel) == want
    assert {'settings.ini', 'LICENSE', 'README.md', 'CHANGELOG.md'} < set(sdist)
    assert not [o for o in sdist if o.startswith('tests')]
    info = Path(dist[1]).name.rsplit('-', 3)[0]+'.dist-info'
    assert {o.split('/')[0] for o in wheel} == {'fastai_labelsmooth', info}

script = """
from fastai.basics import *
import fastai_labelsmooth
from fastai_labelsmooth.all import *
set_seed(0)
x,y = torch.randn(256, 8),torch.arange(256)%2
x[:,0] += 4*y
dls = DataLoaders(*[DataLoader(list(zip(x, y)), bs=32, num_workers=0) for _ in range(2)])
learn = Learner(dls, nn.Linear(8, 2), nn.CrossEntropyLoss(), metrics=accuracy, cbs=LabelSmooth(eps=0.1))
with learn.no_bar(): learn.fit(5, .1)
print('trained:', learn.topk(k=2).prob_1.mean(), learn.validate()[1], fastai_labelsmooth.__file__)
"""

def test_the_installed_wheel_trains(elsewhere):
    printed = run_process([elsewhere, '-I', '-c', script], timeout=300, cwd=elsewhere.parent)
    prob,acc,file = re.search('^trained: (.*?) (.*?) (.*)', printed, re.M).groups()
    assert .5 < float(prob) < .96 and float(acc) > .9
    assert Path(file).is_relative_to(elsewhere.parent.parent) and not Path(file).is_relative_to(root)

@pytest.fixture(scope='module')
def metadata(dist):
    wheel = ZipFile(dist[1])
    return message_from_bytes(wheel.read(next(o for o in wheel.namelist() if o.endswith('METADATA'))))

def prose(markdown): return re.sub(r'```.*?```|`[^`]*`', '`code`', markdown, flags=re.S)

def test_links_lead_from_an_index_to_the_repository(metadata, ini):
    shown,readme = metadata.get_payload(decode=True).decode(),(root/'README.md').read_text(encoding='utf-8')
    before,after = (re.findall(r'(!?)\[[^][]*\]\(([^)]+)\)|(?:src|href)="([^"]*)', prose(o)) for o in (readme, shown))
    assert len(before) == len(after)
    for (_,was,html),(image,to,_) in zip(before, after):
        assert not html or html.startswith('https://'), f'{html}: a relative link in HTML'
        kind,file = 'raw' if image else 'blob','README.md' if was.startswith('#') else ''
        if was.startswith('http'): assert to == was
        elif was: assert to == f"{ini['git_url']}/{kind}/{ini['branch']}/{file}{was}"
    whole = r'https://github.com/[^)]*?/(?:blob|raw)/\w+/(?:README.md(?=#))?'
    assert re.sub(whole, '', shown).strip() == readme.strip() # nothing else is changed

def test_links_lead_somewhere():
    readme = (root/'README.md').read_text(encoding='utf-8')
    heads = [re.sub(r'[^\w\- ]', '', o.lower()).replace(' ', '-') for o in re.findall(r'^#+ (.*)', prose(readme), re.M)]
    for to in re.findall(r'\]\((?!http)([^)]+)\)', prose(readme)):
        path,_,head = to.partition('#')
        assert (root/path).exists(), to
        assert path or head in heads, f'{to}: {heads}'

def test_urls_and_classifiers(metadata):
    urls = dict(o.split(', ') for o in metadata.get_all('Project-URL'))
    assert urls.keys() == {'Repository', 'Documentation', 'Issues', 'Changelog'}
    assert all(o.startswith('https://') for o in urls.values())
    pythons = [o.rsplit(' ', 1)[1] for o in metadata.get_all('Classifier') if re.search(r':: 3\.\d+$', o)]
    assert metadata['Requires-Python'] == f'>={pythons[0]}'

def test_the_oldest_versions_are_those_of_settings_ini(ini):
    oldest = dict(o.split('==') for o in (root/'tests/oldest.txt').read_text().splitlines() if not o.startswith('#'))
    bounds = dict(o.split('>=') for o in ini['requirements'].split() if '>=' in o)
    for name,bound in bounds.items(): assert bound in (oldest[name], oldest[name].removesuffix('.0')), name
