# frozen_string_literal: true

# Everything a template may take for granted, loaded once: children are forked from here.
%w[
  base64 bigdecimal cgi date digest digest/sha1 digest/sha2 erb etc fcntl fiddle ipaddr json net/http open3 openssl
  optparse ostruct pathname pp psych ripper securerandom set shellwords stringio strscan tempfile time timeout tmpdir
  uri yaml zlib
].each do |library|
  require library
rescue LoadError
  # A template that needs it will say so.
end
# Unreadable to processes of the same user: another template's child must not look into this one.
begin
  prctl = Fiddle::Function.new(Fiddle.dlopen(nil)['prctl'], [Fiddle::TYPE_INT] + [Fiddle::TYPE_LONG] * 4, Fiddle::TYPE_INT)
  prctl.call(4, 0, 0, 0, 0) # PR_SET_DUMPABLE
rescue StandardError
  # Without it the limits and the other uid still hold.
end
