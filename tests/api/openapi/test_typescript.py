"""Types for TypeScript made from the OpenAPI document compile, and tell a right program from a wrong one.

The compiler and openapi-typescript are those of the lock file in the folder `typescript`; nothing made is kept.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from api.app import create_app
from storage.settings import Settings

PACKAGES = Path(__file__).parent / "typescript"
AWAY = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENOTCACHED|network")
PROGRAM = """\
import type { components, paths } from "./api";

type Schemas = components["schemas"];
type Answer<P extends keyof paths, M extends "get" | "post"> =
  paths[P] extends Record<M, { responses: infer R }>
    ? R[keyof R & (200 | 201 | 202)] extends { content: { "application/json": infer D } } ? D : never
    : never;

declare function get<P extends keyof paths>(path: P): Promise<Answer<P, "get">>;

export async function looked(): Promise<void> {
  const page = await get("/v1/models");
  const names: string[] = page.items.map((model) => model.name);
  // @ts-expect-error: no model has a title
  page.items.map((model) => model.title);
  const cursor: string | null | undefined = page.next_cursor;
  const increment = await get("/v1/increments/{increment_id}");
  const state: "queued" | "running" | "succeeded" | "failed" | "cancelled" = increment.status;
  // @ts-expect-error: it may be queued, too
  const late: "running" | "succeeded" | "failed" | "cancelled" = increment.status;
  const loss: number | null = increment.progress?.loss ?? null;
  // @ts-expect-error: a stage may have no loss, and an increment no progress
  const certain: number = increment.progress?.loss;
  // @ts-expect-error: there is no such route
  await get("/v1/modules");
  console.log(names, cursor, state, late, loss, certain);
}

export const wanted: Schemas["ModelIn"] = { name: "plants" };
// @ts-expect-error: a model needs a name
export const nameless: Schemas["ModelIn"] = {};
export const refusal = (problem: Schemas["Problem"]): string => `${problem.status}: ${problem.detail}`;
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compiler and the types; skips where there is no node, or its packages cannot be had."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("no node here")
    place = tmp_path_factory.mktemp("typescript")
    for file in PACKAGES.iterdir():
        shutil.copy(file, place)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=1"]
    installed = subprocess.run([npm, "ci", *options], cwd=place, capture_output=True, text=True, check=False)
    if installed.returncode and AWAY.search(installed.stderr):
        pytest.skip("the packages of npm cannot be had here")
    assert installed.returncode == 0, installed.stderr
    document = create_app(Settings(home=place / "home")).openapi()
    (place / "openapi.json").write_text(json.dumps(document))
    # What a request may leave out has a default in the document; without the option it would have to be there.
    options = ["--default-non-nullable=false", "--output", "api.d.ts"]
    made = run(place, "openapi-typescript", "openapi.json", *options)
    assert made.returncode == 0, made.stderr
    return place


def run(folder: Path, tool: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run one of the installed tools."""
    command = [str(folder / "node_modules" / ".bin" / tool), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def compiled(folder: Path, program: str) -> "subprocess.CompletedProcess[str]":
    """Check a program's types, and those of all declarations that it reads."""
    (folder / "program.ts").write_text(program)
    return run(folder, "tsc", "--strict", "--noEmit", "--target", "es2022", "--lib", "es2022,dom", "program.ts")


def test_a_program_compiles_against_the_types_and_a_wrong_one_does_not(folder: Path) -> None:
    done = compiled(folder, PROGRAM)
    assert done.returncode == 0, done.stdout


def test_the_compiler_looks(folder: Path) -> None:
    done = compiled(folder, PROGRAM.replace("// @ts-expect-error: no model has a title", ""))
    assert "Property 'title' does not exist" in done.stdout
