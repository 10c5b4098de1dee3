#!/bin/sh
# Makes the databases beside this script, on Debian 12 with the packages rpm, perl, python3 and xz-utils:
# rpm itself makes headers and the SQLite form; Berkeley DB 5.3, by perl's DB_File, puts the same headers into the old form.
# Nothing is installed. rpm reads the result: rpm -qa --define '_db_backend bdb_ro' --dbpath FOLDER.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir specs tmp sqlite headers
export SOURCE_DATE_EPOCH=1700000000

package() { # NAME VERSION RELEASE FILES
	cat >"specs/$1.spec" <<-END
		Name: $1
		Version: $2
		Release: $3
		Summary: A package of the tests
		License: CC0-1.0
		BuildArch: noarch
		%description
		Nothing is in it but names.
		%install
		mkdir -p %{buildroot}/usr/share/$1
		for n in \$(seq $4); do touch %{buildroot}/usr/share/$1/a_file_with_a_long_name_\$n; done
		%files
		/usr/share/$1
	END
	rpmbuild -bb --quiet --define "_topdir $work" --define "_tmppath $work/tmp" --define '_buildhost localhost' \
		--define 'use_source_date_epoch_as_buildtime 1' "specs/$1.spec"
}
package bash 5.1.8 6.el9 100
package mpich 4.0.2 1.el8 1
package openmpi 4.1.1 7.el8 60
package ucx 1.13.1 2.el8 1

rpmdb --initdb --dbpath "$work/sqlite"
rpm -i --justdb --nodeps --nosignature --dbpath "$work/sqlite" RPMS/noarch/*.rpm
python3 - <<-'END'
	import sqlite3

	database = sqlite3.connect("sqlite/rpmdb.sqlite")
	database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
	names = dict(database.execute("SELECT hnum, key FROM Name"))
	for number, header in database.execute("SELECT hnum, blob FROM Packages"):
	    open(f"headers/{names[number]}", "wb").write(header)
END

# mpich is removed, and what follows lies where others lay: chains that go backwards, pages that are free.
perl -MDB_File -MFcntl - <<-'END'
	my $info = DB_File::HASHINFO->new;
	$info->{bsize} = 4096;
	tie my %packages, 'DB_File', 'Packages', O_RDWR | O_CREAT, 0644, $info or die $!;
	sub put {
	    my ($number, $name) = @_;
	    open my $file, '<:raw', "headers/$name" or die $!;
	    local $/;
	    $packages{pack('V', $number)} = <$file>;
	}
	put(1, 'bash');
	put(2, 'mpich');
	delete $packages{pack('V', 1)};
	delete $packages{pack('V', 2)};
	put(3, 'openmpi');
	put(4, 'bash');
	put(5, 'ucx');
	$packages{pack('V', 0)} = pack('V', 6);
END
xz -9e --stdout Packages >"$here/Packages.xz"
xz -9e --stdout sqlite/rpmdb.sqlite >"$here/rpmdb.sqlite.xz"
