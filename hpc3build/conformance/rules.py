"""The table of rules. docs/conformance.md is generated from it."""

from __future__ import annotations

from hpc3build.conformance import configuration, declarations, files
from hpc3build.conformance.rule import Level, Rule, Severity

_HPC3 = "HPC3, Expected Container Behaviour (qnib.org, 2023-02-02)"
_TALK = "HPC3, lightning talk (ISC Containers in HPC)"
_PAPER = "Recommendations for the packaging and containerizing of bioinformatics software (Gruening et al., 2019)"
_VOCABULARY = "docs/vocabulary.md"
_IMAGE_SPEC = "OCI image specification"
REBUILD = "rebuild with hpc3build build"
MUST, SHOULD = Severity.MUST, Severity.SHOULD
CONFIG, LAYERS, LIVE = Level.CONFIG, Level.LAYERS, Level.LIVE

# The formatter would give every argument its own line, and the table its form away.
# fmt: off
RULES: tuple[Rule, ...] = (
    # ---- the configuration
    Rule("entrypoint", "the entry point is a login shell, the same for every application", _HPC3, MUST, CONFIG,
         "hpc3build check --fix", configuration.entrypoint),
    Rule("command", "asked for nothing, it gives a shell: the command is /bin/bash", _HPC3, MUST, CONFIG,
         "hpc3build check --fix", configuration.command),
    Rule("environment", "config.Env has the application's PATH too: most HPC engines skip the entry point",
         _HPC3 + ", Other scheduler", MUST, CONFIG, "hpc3build check --fix", configuration.environment),
    Rule("site-settings", "config.Env keeps no proxy, CA or package setting of the site that built", "sites' practice",
         MUST, CONFIG, "hpc3build check --fix; give them to the next build as secrets", configuration.site_settings),
    Rule("credentials", "no password or token is in environment, labels or history", "sites' practice", MUST, CONFIG,
         "change the password, then rebuild with it as a build secret: the history keeps it",
         configuration.credentials),
    Rule("user", "USER is unset or a number: a site's engine decides who runs it", "kubernetes.io, runAsNonRoot",
         SHOULD, CONFIG, "hpc3build check --fix", configuration.user),
    Rule("working-folder", "WORKDIR can be entered by any user", _HPC3, MUST, CONFIG, "hpc3build check --fix",
         configuration.working_folder),
    Rule("volumes", "no volume is declared: data is mounted by the job", _PAPER + ", 6", SHOULD, CONFIG,
         "hpc3build check --fix", configuration.volumes),
    # ---- what it says of itself
    Rule("labels", "labels and annotations of the vocabulary say the same: runtimes read labels",
         _VOCABULARY + ", R10", MUST, CONFIG, "hpc3build check --fix, or hpc3build annotate --labels -a KEY=VALUE",
         declarations.same_words),
    Rule("mandatory", "every mandatory key is there, as far as it is known", _VOCABULARY, MUST, CONFIG,
         "hpc3build annotate --detect --labels", declarations.mandatory),
    Rule("well-formed", "values follow the grammar of their keys", _VOCABULARY, MUST, CONFIG,
         "hpc3build annotate --labels -a KEY=VALUE", declarations.well_formed),
    Rule("forbidden", "no key that privileged runtimes act on is there", _VOCABULARY + ", N6", MUST, CONFIG,
         "hpc3build annotate --labels --remove KEY", declarations.forbidden),
    Rule("stale-labels", "no label tells of the base image instead of this one", _IMAGE_SPEC + ", annotations", MUST,
         CONFIG, "hpc3build annotate --labels --remove KEY", declarations.stale_labels),
    Rule("base-pinned", "the base image is named with its digest", _IMAGE_SPEC + ", base.digest", SHOULD, CONFIG,
         REBUILD, declarations.base_pinned),
    Rule("version", "the application's version is explicit", _PAPER + ", 3", SHOULD, CONFIG,
         "hpc3build annotate --labels -a org.opencontainers.image.version=…",
         declarations.says("org.opencontainers.image.version")),
    Rule("tested", "it was tested before it was published", _PAPER + ", 7", SHOULD, CONFIG,
         "name a command under smoke in hpc3build.yaml and rebuild",
         declarations.says("io.github.hpc3build.conformance")),
    Rule("licence", "the application's licence is named", _PAPER + ", 8", SHOULD, CONFIG,
         "hpc3build annotate --labels -a org.opencontainers.image.licenses=SPDX",
         declarations.says("org.opencontainers.image.licenses")),
    Rule("discoverable", "it can be found by its application's name", _PAPER + ", 9", SHOULD, CONFIG,
         "hpc3build annotate --labels -a org.opencontainers.image.title=…",
         declarations.says("org.opencontainers.image.title")),
    Rule("reproducible", "what it was built from is recorded", _PAPER + ", 10", SHOULD, CONFIG, REBUILD,
         declarations.says("io.github.hpc3build.lock", "org.opencontainers.image.source")),
    Rule("usage", "it says how it is used", _PAPER + ", 11", SHOULD, CONFIG,
         "docs in hpc3build.yaml, or hpc3build annotate -a org.opencontainers.image.documentation=URL",
         declarations.says("org.supercontainers.documentation", "org.opencontainers.image.documentation",
                           "org.opencontainers.image.description")),
    # ---- its files
    Rule("shell", "any user can run /bin/bash", _HPC3, MUST, LAYERS, "install bash in the final stage", files.shell),
    Rule("any-uid", "no login script asks for the name of a user, who may have none", _HPC3, MUST, LAYERS, REBUILD,
         files.login_scripts),
    Rule("readable", "applications and login scripts can be read by all", _HPC3, MUST, LAYERS,
         "chmod -R a+rX in the builder stage", files.readable),
    Rule("set-uid", "only the distribution's own files are set-UID", "sites' practice", MUST, LAYERS,
         "chmod ug-s in the builder stage", files.setuid),
    Rule("build-tools", "no compiler, linker, build tool or header is left", _PAPER + ", 5", MUST, LAYERS,
         "install it in the builder stage only", files.leftovers("build-tools")),
    Rule("caches", "no package cache or build log is left", _PAPER + ", 5", MUST, LAYERS,
         "remove it in the step that makes it", files.leftovers("caches")),
    Rule("stripped", "binaries hold no debugging sections", _PAPER + ", 5", SHOULD, LAYERS,
         "leave container:strip and strip as they are: on", files.stripped),
    Rule("secrets", "no private key or password file is in any folder", "sites' practice", MUST, LAYERS,
         "change the password, then rebuild with it as a build secret", files.leftovers("secrets")),
    Rule("site-files", "no CA, proxy or mirror setting of the site that built is left", "sites' practice", MUST,
         LAYERS, "give them to the build as secrets: hpc3build build does", files.leftovers("site-files")),
    Rule("driver", "no driver library of a host and no stub of one is there", "NVIDIA container toolkit", MUST, LAYERS,
         "the engine brings the host's; remove the file", files.leftovers("driver")),
    Rule("data", "data is kept outside", _PAPER + ", 6", SHOULD, LAYERS, "mount it", files.data),
    # ---- how it runs
    Rule("login-shell", "asked for nothing, it drops into a shell that reads its standard input", _HPC3, MUST, LIVE,
         "the entry point of HPC3 with CMD /bin/bash"),
    Rule("arguments", "a command given as arguments runs as given, with the application on its PATH", _HPC3, MUST,
         LIVE, "the entry point of HPC3, and a PATH in /etc/profile.d"),
    Rule("quoting", "arguments reach the command as they were quoted", _TALK, MUST, LIVE, "--entrypoint hpc3-exec"),
    Rule("exit-status", "the command's exit status is the container's", _TALK, MUST, LIVE, "--entrypoint hpc3-exec"),
    Rule("shell-pipe", "a pipe given to a shell runs", _TALK, MUST, LIVE, "--entrypoint hpc3-exec"),
    Rule("stdin", "standard input reaches the command", _HPC3, MUST, LIVE, "exec the command"),
    Rule("read-only", "it runs on a read-only root", "Apptainer, enroot, Sarus", MUST, LIVE,
         "login scripts and wrappers must not write"),
    Rule("any-home", "it runs with a HOME that is not there", "Sarus, Charliecloud", MUST, LIVE,
         "login scripts and wrappers must not need HOME"),
    Rule("bypassed", "round the entry point, the application is on PATH", _HPC3 + ", Other scheduler", MUST, LIVE,
         "hpc3build check --fix"),
    Rule("scratch", "it runs and writes in a folder that is mounted and entered with -w", _HPC3, MUST, LIVE,
         "login scripts must not change the folder"),
    Rule("smoke", "its own test (--smoke, or smoke in hpc3build.yaml) runs", _PAPER + ", 7", MUST, LIVE,
         "what the test prints tells"),
    Rule("smoke-bypassed", "its own test runs round the entry point too", _HPC3 + ", Other scheduler", MUST, LIVE,
         "config.Env must have what the test needs: rebuild with hpc3build build"),
    Rule("signals", "signals reach the application: the entry point becomes it", _HPC3, SHOULD, LIVE,
         "exec the command"),
    Rule("quiet", "the login shell prints nothing of its own", _HPC3, MUST, LIVE, "mend the script in /etc/profile.d"),
    Rule("fast", "the login shell starts within 50 ms more than bash", _TALK, SHOULD, LIVE,
         "mend the script in /etc/profile.d"),
    Rule("strict", "the login scripts of the image can be read under set -eu", "sites' practice", SHOULD, LIVE,
         "mend the script in /etc/profile.d"),
    Rule("engine", "the engine starts containers here", "-", MUST, LIVE, "docs/troubleshooting.md"),
)
# fmt: on
BY_ID = {rule.id: rule for rule in RULES}
