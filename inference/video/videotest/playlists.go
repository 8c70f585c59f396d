package videotest

import "path/filepath"

// A Playlist is a text that names other files.
type Playlist struct {
	Format string // what ffmpeg calls its reader; "" is one that it doesn't read as a list
	Data   []byte
}

const (
	ftyp = "\x00\x00\x00\x10ftypisom\x00\x00\x02\x00"
	hls  = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n"
	// ffmpeg reads what is encrypted by a protocol of its own, whether or not it finds the key.
	encrypted = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXT-X-KEY:METHOD=AES-128,URI=\"file:///proc/version\",IV=0x00000000000000000000000000000000\n#EXTINF:10,\n"
)

// Playlists name the canary, a fragmented mp4, or something at the address. Those behind free begin like an mp4, and are what an
// ffmpeg that may guess takes for playlists all the same.
func Playlists(canary, address string) map[string]Playlist {
	file, network := "file://"+canary, "http://"+address+"/a.mp4"
	return map[string]Playlist{
		"hls":                        {"hls", []byte(hls + file + "\n#EXT-X-ENDLIST\n")},
		"hls, relative":              {"hls", []byte(hls + filepath.Base(canary) + "\n#EXT-X-ENDLIST\n")},
		"hls, network":               {"hls", []byte(hls + network + "\n#EXT-X-ENDLIST\n")},
		"hls, encrypted":             {"hls", []byte(encrypted + file + "\n#EXT-X-ENDLIST\n")},
		"hls behind ftyp":            {"", []byte(ftyp + hls + file + "\n")},
		"concat":                     {"concat", []byte("ffconcat version 1.0\nfile '" + canary + "'\n")},
		"concat protocol":            {"", []byte("concat:" + canary + "|" + canary)},
		"dash":                       {"dash", dash(`<?xml version="1.0"?>`, file)},
		"dash, network":              {"dash", dash(`<?xml version="1.0"?>`, network)},
		"dash behind free":           {"dash", dash("<!--free-->", file)},
		"dash behind skip":           {"dash", dash("<!--skip-->", file)},
		"dash, network, behind free": {"dash", dash("<!--free-->", network)},
		"sdp":                        {"sdp", []byte("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n")},
		"svg":                        {"", []byte(`<svg xmlns="http://www.w3.org/2000/svg"><image href="` + file + `"/></svg>`)},
	}
}

// dash is a list of one clip.
func dash(begin, url string) []byte {
	return []byte(begin + `<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" type="static" ` +
		`mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>` + url +
		`</BaseURL><SegmentBase/></Representation></AdaptationSet></Period></MPD>`)
}
