"""Builds gatewayd with its signer: one cffi API-mode extension, one abi3 wheel per platform.

Everything else about the project is in pyproject.toml. The build fails when the signer does not compile: there is
no slower path to fall back to in silence.
"""

from setuptools import setup

setup(
    cffi_modules=["csrc/cffi_build.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
