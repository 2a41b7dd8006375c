// Package moves moves real guests between hosts, through the API: three hosts on one machine, each with its own agent, libvirtd and network, guests under
// QEMU that write and are spoken to all the while.
//
// KILONOVA_GUESTS=1 go test -v ./test/moves runs it, as root; it touches nothing outside its own namespaces.
package moves
