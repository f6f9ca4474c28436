// The npm packages live in BENCH_CACHE and never beside the code: circom and snarkjs are GPL programs that the user's
// machine installs, and a checkout stays clean. The folder's name is the lock file's digest, so a new lock file
// installs anew.

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BadInput } from './errors.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const MANIFESTS = ['package.json', 'package-lock.json'];

/** Folder of this adapter in the benchmark's cache. */
export function cacheFolder() {
  const cache = process.env.BENCH_CACHE;
  if (!cache) throw new BadInput('BENCH_CACHE is not set: it names the directory for packages and reference strings');
  return join(cache, 'groth16');
}

function packageFolder() {
  const digest = createHash('sha256')
    .update(readFileSync(join(HERE, 'package-lock.json')))
    .digest('hex');
  return join(cacheFolder(), `packages-${digest.slice(0, 16)}`);
}

/** Whether `install` has finished in this cache. */
export function installed() {
  return Boolean(process.env.BENCH_CACHE) && existsSync(packageFolder());
}

/**
 * Installs the locked packages into the cache. The folder gets its name when it is complete, so a broken install leaves
 * none.
 */
export function install() {
  if (installed()) return;
  const folder = packageFolder();
  const unfinished = `${folder}.${process.pid}`;
  mkdirSync(unfinished, { recursive: true });
  try {
    for (const name of MANIFESTS) copyFileSync(join(HERE, name), join(unfinished, name));
    const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';
    // No package of the lock file needs its scripts to run.
    const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund'];
    const { status, error } = spawnSync(npm, args, { cwd: unfinished, stdio: ['ignore', 2, 2] });
    if (error) throw new BadInput(`npm cannot be started: ${error.message}`);
    if (status !== 0) throw new BadInput(`npm ci ended with status ${status}; its messages are above`);
    // Somebody else may have finished first; theirs is as good.
    if (!existsSync(folder)) renameSync(unfinished, folder);
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
}

function requireFromCache() {
  if (!installed()) throw new BadInput('the npm packages are not installed: run `node steps.mjs install`');
  return createRequire(join(packageFolder(), 'package.json'));
}

/** Loads an installed package. */
export function load(name) {
  return requireFromCache()(name);
}

/** The compiler's command-line program. */
export function circomProgram() {
  return requireFromCache().resolve('circom2/cli.js');
}
