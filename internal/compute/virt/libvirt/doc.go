package libvirt
