# In the manner of Ubuntu's /etc/bash.bashrc, in this project's own words: who may use sudo is told so.
if [ ! -e "$HOME/.hushlogin" ]; then
    case " $(groups) " in
        *\ sudo\ *) [ ! -x /usr/bin/sudo ] || echo "use sudo" ;;
    esac
fi
