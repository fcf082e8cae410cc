// Package backup copies the log of a running broker, and puts copies back.
//
//	broker            Send: a snapshot's files as a tar stream      send.go
//	   │
//	   ▼
//	sluice backup     Receive: into a folder of its own, linking    receive.go
//	   │              to the backup before what has not changed
//	   ▼
//	sluice restore    Restore: into an empty data directory         restore.go
//
// A folder of backups holds one directory for each, named by its time. Each is
// whole by itself: a data directory and a manifest with the checksum of every
// file (manifest.go), so any of them can be removed without looking at the
// others. The manifest is written last; a directory without one is a backup
// that was not finished.
package backup
