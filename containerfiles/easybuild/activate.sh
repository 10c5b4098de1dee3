# Sourced by capture.py: load the modules that were asked for.
for script in /opt/lmod/lmod/init/bash /etc/profile.d/lmod.sh /usr/share/lmod/lmod/init/bash; do
    if [ -r "$script" ]; then . "$script"; break; fi
done
module use /opt/easybuild/modules/all
while read -r name; do
    module load "$name"
done </opt/hpc3build/build/easybuild/modules.txt
