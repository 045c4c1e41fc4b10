"What CONTRIBUTING.md, the workflows and CITATION.cff say is true"
import os, re, shutil, sys
from configparser import ConfigParser
from pathlib import Path
import pytest, yaml
from fastcore.nbio import mk_cell, new_nb, write_nb
from helpers import run_process

root = Path(__file__).parent.parent

def settings(name, section):
    o = ConfigParser()
    o.read(root/name, encoding='utf-8')
    return o[section]

def blocks(heading):
    "The code blocks of a section of CONTRIBUTING.md: their language, and what is in them"
    section = (root/'CONTRIBUTING.md').read_text(encoding='utf-8').split(f'\n## {heading}\n')[1].split('\n## ')[0]
    return re.findall(r'^```(\w+)\n(.*?)\n```$', section, re.M | re.S)

@pytest.mark.slow
def test_the_smoother_in_ten_minutes_works(tmp_path):
    "Step by step, in a copy"
    *cells,(_,line),(_,entry),(_,commands) = blocks('A smoother in ten minutes')
    for o in ('nbs', 'fastai_labelsmooth', 'tests'):
        shutil.copytree(root/o, tmp_path/o, ignore=shutil.ignore_patterns('__pycache__'))
    for o in ('pyproject.toml', 'setup.cfg'): shutil.copy(root/o, tmp_path)
    name, = re.findall(r'nbs/\S+\.ipynb', commands)
    write_nb(new_nb([mk_cell(s, 'code' if kind == 'python' else kind) for kind,s in cells]), tmp_path/name)
    with open(tmp_path/'fastai_labelsmooth/all.py', 'a') as f: f.write(line+'\n')
    tests = tmp_path/'tests/test_smoothers.py'
    tests.write_text(tests.read_text().replace('\nsmoothers = dict(\n', f'\nsmoothers = dict(\n{entry}\n'))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    env = {**os.environ, 'PATH': path, 'PYTHONPATH': str(tmp_path)}
    out = run_process(['sh', '-e', '-c', commands], 300, cwd=tmp_path, env=env)
    assert re.search(r'\d\d passed', out), out

def test_commands_are_there():
    "Every `make` target, console script and path that CONTRIBUTING.md names"
    text = (root/'CONTRIBUTING.md').read_text(encoding='utf-8')
    targets = re.findall(r'^(\S+):', (root/'Makefile').read_text().replace('$(VENV)', '.venv'), re.M)
    for names in re.findall(r'make ((?:[\w./-]+ ?)+)', ' '.join(re.findall(r'`make [^`]*`|^make [^#\n]*', text, re.M))):
        for o in names.split(): assert o in targets, o
    for o in re.findall(r'`((?:tests|nbs|fastai_labelsmooth)/[\w/.]+)`', text):
        assert (root/o).exists() or 'circle' in o, o

def test_workflows_run_each_python_and_command_that_is_promised():
    flows = {p.stem: yaml.safe_load(p.read_text()) for p in (root/'.github/workflows').glob('*.yml')}
    newest,oldest = (flows['test']['jobs'][o] for o in ('newest', 'oldest'))
    pythons = newest['strategy']['matrix']['python']
    classifiers = re.findall(r':: (3\.\d+)$', settings('setup.cfg', 'metadata')['classifiers'], re.M)
    assert set(classifiers) <= set(pythons)
    setup,test = oldest['steps'][1:]
    assert setup['with']['python-version'] == pythons[0] == settings('settings.ini', 'DEFAULT')['min_python']
    assert newest['steps'][-1]['run'] == 'make test' and test['run'] == 'make test-oldest'
    for flow in flows.values():
        for job in flow['jobs'].values(): assert 'timeout-minutes' in job

def test_citation_is_settings_ini():
    cite,s = yaml.safe_load((root/'CITATION.cff').read_text()),settings('settings.ini', 'DEFAULT')
    assert cite['title'] == s['lib_name'] and cite['abstract'] == s['description'] and cite['license'] == s['license']
    assert cite['authors'] == [{'name': s['author']}] and cite['keywords'] == s['keywords'].split()
    assert cite['repository-code'] == s['git_url']

def test_git_knows_notebooks():
    "The drivers' names that `nbdev-install-hooks` defines"
    assert '*.ipynb merge=jupyternotebook' in (root/'.gitattributes').read_text().splitlines()

def test_a_test_has_the_same_name_in_every_process(request):
    "No name holds an address, which differs from process to process"
    assert not [o.nodeid for o in request.session.items if ' at 0x' in o.nodeid]
