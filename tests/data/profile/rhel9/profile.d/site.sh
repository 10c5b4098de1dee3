# What a site may add: the other spellings.
site_user=$(whoami)
site_again=$(/usr/bin/whoami)
site_group=$(id -ng)
site_name=`id -nu`
export site_user site_again site_group site_name
