"The project's files say each fact once, and what is generated is up to date"
import re, shutil, sys
from configparser import ConfigParser
from importlib.metadata import metadata, requires, version, entry_points
from pathlib import Path
import pytest
import fastai_labelsmooth
from helpers import run_process

root = Path(__file__).parent.parent

@pytest.fixture
def ini():
    o = ConfigParser()
    o.read(root/'settings.ini', encoding='utf-8')
    return o['DEFAULT']

def test_metadata_is_settings_ini(ini):
    m = metadata('fastai_labelsmooth')
    assert m['Name'].replace('-', '_') == ini['lib_name']
    assert m['Summary'] == ini['description']
    assert m['Author'] == ini['author']
    assert m['License-Expression'] == ini['license']
    assert m['Keywords'].replace(',', ' ').split() == ini['keywords'].split()
    assert m['Requires-Python'] == '>='+ini['min_python']
    assert version('fastai_labelsmooth') == fastai_labelsmooth.__version__

@pytest.mark.parametrize('key,marker', [
    ('requirements', None),
    ('dev_requirements', 'extra == "dev"'),
    ('bench_requirements', 'extra == "bench"'),
    ('docs_requirements', 'extra == "docs"'),
    ('widgets_requirements', 'extra == "widgets"')])
def test_requirements_are_settings_ini(ini, key, marker):
    of_key = [r for r in requires('fastai_labelsmooth') if (marker in r if marker else 'extra' not in r)]
    names = [r.split(';')[0].strip() for r in of_key]
    assert sorted(names) == sorted(o.split(';')[0] for o in ini[key].split())

def test_nbdev_entry_point():
    ep, = [o for o in entry_points(group='nbdev') if o.name == 'fastai_labelsmooth']
    assert ep.load()['settings']['lib_path'] == 'fastai_labelsmooth'

def test_export_changes_nothing(tmp_path):
    caches = shutil.ignore_patterns('__pycache__')
    for o in ('nbs', 'fastai_labelsmooth'): shutil.copytree(root/o, tmp_path/o, ignore=caches)
    for o in ('pyproject.toml', 'settings.ini'): shutil.copy(root/o, tmp_path)
    run_process([Path(sys.executable).parent/'nbdev-export'], 120, cwd=tmp_path)
    modules = sorted(p.relative_to(root) for p in (root/'fastai_labelsmooth').rglob('*.py'))
    assert sorted(p.relative_to(tmp_path) for p in (tmp_path/'fastai_labelsmooth').rglob('*.py')) == modules
    for o in modules:
        exported,here = ((folder/o).read_text() for folder in (tmp_path, root))
        assert exported == here, f"{o} is not what its notebook exports: run nbdev-export"
    assert (tmp_path/'nbs/llms.txt').read_text() == (root/'nbs/llms.txt').read_text(), "run nbdev-export"

def test_notebooks_are_clean(tmp_path):
    shutil.copytree(root/'nbs', tmp_path/'nbs')
    for o in ('pyproject.toml', 'settings.ini'): shutil.copy(root/o, tmp_path)
    run_process([Path(sys.executable).parent/'nbdev-clean'], 120, cwd=tmp_path)
    for p in (tmp_path/'nbs').rglob('*.ipynb'):
        here = p.relative_to(tmp_path)
        assert p.read_bytes() == (root/here).read_bytes(), f'{here} is not clean: run nbdev-clean'

def test_readme_is_the_index():
    sys.path.insert(0, str(root/'nbs'))
    try: from _readme import picture, pictures, readme
    finally: sys.path.pop(0)
    for file,name in pictures.items(): assert (root/'nbs'/file).read_bytes() == picture(name), "run `make readme`"
    assert (root/'README.md').read_text() == readme(), "run `make readme`"

def test_readme_begins_with_the_description_of_settings_ini(ini):
    assert (root/'README.md').read_text().splitlines()[2] == f"> {ini['description']}"

def test_no_private_name_crosses_a_module():
    for p in (root/'fastai_labelsmooth').rglob('*.py'):
        taken = re.findall(r'^from \.[^(\n]*(?:\([^)]*\))?', p.read_text(), re.M)
        private = re.findall(r'\b_[a-z]\w*', ' '.join(taken))
        assert p.name in ('_modidx.py',) or not private, f'{p.name} takes {private}'
