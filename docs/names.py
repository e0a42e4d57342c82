"""Where a file and what it exports have one name, the name means what is exported.

`jaxmeta.learners.gradient.maml` is the function for everyone who imports it, but in the tree of
files it is the module `maml.py`. Here such modules step aside, so that the reference finds the
functions by the paths that people write.
"""

from collections.abc import Iterator
from typing import Any

from griffe import Alias, Extension, Module


def modules(package: Module) -> Iterator[Module]:
    yield package
    for member in package.members.values():
        if isinstance(member, Module):
            yield from modules(member)


class PublicNames(Extension):
    def on_package(self, *, pkg: Module, **kwargs: Any) -> None:
        moved = {}
        for package in list(modules(pkg)):
            for name, target in package.imports.items():
                file = package.members.get(name)
                if isinstance(file, Module) and target == f"{file.path}.{name}":
                    old, file.name = file.path, f"{name}_module"
                    package.del_member(name)
                    moved[old] = file.path
                    package.set_member(file.name, file)
                    package.set_member(name, Alias(name, target))
        for module in modules(pkg):
            for name, alias in list(module.members.items()):
                if isinstance(alias, Alias):
                    owner, _, member = alias.target_path.rpartition(".")
                    module.del_member(name)  # made anew: it may have been followed already
                    module.set_member(name, Alias(name, f"{moved.get(owner, owner)}.{member}"))
