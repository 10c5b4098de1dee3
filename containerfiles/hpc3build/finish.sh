# Last step of the final stage: the base's login scripts must not ask for a user's name, as a container runs under
# users and groups that no file knows (the Red Hat family's /etc/profile calls `id -un`, Ubuntu's bash.bashrc `groups`).
set -eu
# Calls, not words: a variable or the branch of a case may have such a name. The same as ASKS_FOR_A_NAME in
# hpc3build/conformance/files.py.
names='(^|[^-$.{a-zA-Z0-9_])(whoami|logname)([^-=.(a-zA-Z0-9_]|$)|\bid( +-[-a-zA-Z]+)* +(-[agruzGZ]*n[agnruzGZ]*|--name)\b|[(`] *(/usr/bin/)?groups *[)`]|(^|[;&|({!`]|\b(if|then|do|else|elif|while|until) ) *(/usr/bin/)?groups([ ;&|<>]|$)'
for script in /etc/profile /etc/bashrc /etc/bash.bashrc /etc/profile.d/*.sh; do
    if [ -f "$script" ] && grep -Eq "$names" "$script"; then
        # What is left of `id -u -n` without its n is a dash alone, which goes last.
        sed -i -E -e ':again' \
            -e 's#(^|[^-$.{a-zA-Z0-9_])(whoami|logname)([^-=.(a-zA-Z0-9_]|$)#\1id -u\3#' \
            -e 's#\b(id( +-[-a-zA-Z]+)*) +--name\b#\1#' \
            -e 's#\b(id( +-[-a-zA-Z]+)* +-[agruzGZ]*)n([agnruzGZ]*)\b#\1\3#' \
            -e 's#([(`] *(/usr/bin/)?)groups( *[)`])#\1id -G\3#' \
            -e 's#((^|[;&|({!`]|\b(if|then|do|else|elif|while|until) ) *(/usr/bin/)?)groups([ ;&|<>]|$)#\1id -G\5#' \
            -e 'tagain' -e 's#\b(id( +-[-a-zA-Z]+)*) +-([^-a-zA-Z]|$)#\1\3#g' "$script"
    fi
done
if command -v ldconfig >/dev/null 2>&1; then
    ldconfig
fi
# A cache of ldconfig's own, rebuilt at will, and never the same twice.
rm -f /var/cache/ldconfig/aux-cache
