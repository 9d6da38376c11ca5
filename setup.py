"""Everything that can't be said in pyproject.toml: the compiled module and the build's record."""

from setuptools import find_packages, setup

from build_backend.commands import BuildExt, BuildInfo, BuildWithInfo, extensions

setup(
    packages=find_packages(include=["pyops", "pyops.*"]),
    package_data={"pyops": ["py.typed", "_C.pyi", "data/*"]},
    include_package_data=False,
    ext_modules=extensions(),
    cmdclass={"build": BuildWithInfo, "build_ext": BuildExt, "build_info": BuildInfo},
    zip_safe=False,
)
