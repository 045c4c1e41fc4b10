"`help()` explains what a user types: what it does, each parameter by name, and an example"
import inspect, re
import pytest
import fastai_labelsmooth.all as library
from fastai.learner import Learner

def is_ours(o): return str(getattr(o, '__module__', '')).startswith('fastai_labelsmooth')

public = {name: o for name,o in vars(library).items() if is_ours(o) and callable(o)}
public |= {f'Learner.{name}': o for name,o in vars(Learner).items() if is_ours(o)}

def parameters(o):
    "The parameters that a user gives; none of a class that takes those of its base"
    if inspect.isclass(o) and not is_ours(o.__init__): return []
    func = o.__init__ if inspect.isclass(o) else o
    named = inspect.Parameter.POSITIONAL_OR_KEYWORD,inspect.Parameter.KEYWORD_ONLY
    return [p.name for p in inspect.signature(func).parameters.values() if p.name != 'self' and p.kind in named]

@pytest.mark.parametrize('name', public)
def test_help_says_what_it_does_names_each_parameter_and_shows_an_example(name):
    doc = inspect.getdoc(public[name])
    assert re.search(r'^    \S', doc, re.M), f'no indented example in {doc!r}'
    def explained(o): return re.search(rf'`[^`\n]*\b{o}\b[^`\n]*`|^    .*\b{o}=', doc, re.M)
    missing = [o for o in parameters(public[name]) if not explained(o)]
    assert not missing, f'{missing} are not explained in {doc!r}'
