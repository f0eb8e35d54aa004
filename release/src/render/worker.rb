# frozen_string_literal: true

# The worker: reads requests from its standard input, answers on its standard output.
#
# Each message is its length in four bytes (big endian) and JSON. A request is one job's templates and any number of
# contexts; it is rendered in a forked child that has nothing but its own pipe, so that whatever a template defines,
# changes or breaks ends with the request. Templates that would leave something behind for the next *context* (methods,
# constants, globals) get a child per context. The worker itself never runs a line of a template.

module Directorate
  # A template, compiled once per request.
  class Source
    attr_reader :path

    def initialize(job, path, text)
      @path = path
      @file = "#{job}/#{path}"
      @code = ERB.new(text.force_encoding(Encoding::UTF_8), trim_mode: '-').src
      @tokens = Ripper.lex(@code)
    end

    def render(context)
      compile unless defined?(@method)
      # The first line of ERB's code is its magic comment, hence 0.
      (@method ? context.__send__(@method) : eval(@code, context.get_binding, @file, 0)).to_s
    end

    # Code that changes more than the context it runs in: its effects would be seen by the next context.
    LASTING_KEYWORDS = %w[def class module alias undef BEGIN END].freeze
    LASTING_CALLS = /\A(define_\w*method|\w*const_set|remove_\w+|\w*(class|module|instance)_(eval|exec)|eval|binding|
      class_variable_set|__send__|send|public_send|prepend|extend|include|refine|method_missing|srand|at_exit|
      trace_var|set_trace_func|autoload|load)\z/x
    HARMLESS_GLOBALS = /\A\$([~!@&`'+?_0-9]|stdout|stderr|stdin|PROGRAM_NAME)\z/

    def lasting?
      @tokens.each_with_index.any? do |(_, kind, text), i|
        case kind
        when :on_kw then LASTING_KEYWORDS.include?(text)
        when :on_ident then text.match?(LASTING_CALLS)
        when :on_gvar, :on_backref then !text.match?(HARMLESS_GLOBALS)
        when :on_cvar then true
        when :on_const then assigned?(i)
        end
      end
    end

    # Returns what BOSH says about a failure of this template.
    def failure(error)
      { 'source' => @path, 'line' => line_of(error), 'message' => text_of(error) }
    end

    private

    # Parsing is most of the work, so code that cannot tell the difference becomes a method of the context.
    def compile
      @method = nil
      return if lasting? || @tokens.any? { |_, kind, text| kind == :on_kw && text == 'return' }
      RubyVM::InstructionSequence.compile(@code) # What is no valid text by itself must fail when it is rendered.
      name = :"__template_#{object_id}"
      body = @code.sub(/\A#coding:.*$/, 'proc do').force_encoding(Encoding::UTF_8)
      context = Bosh::Common::Template::EvaluationContext
      context.define_method(name, &context.allocate.get_binding.eval("#{body}\nend", @file, 0))
      @method = name
    rescue SyntaxError
      @method = nil
    end

    def assigned?(constant)
      following = @tokens[constant + 1..].find { |_, kind, _| kind != :on_sp }
      return false unless following
      following[1] == :on_comma || (following[1] == :on_op && following[2].match?(/\A[^=!<>]*=\z|\A(<<|>>)=\z/))
    end

    def line_of(error)
      return nil if error.is_a?(SyntaxError)
      frame = error.backtrace_locations&.find { |location| location.path == @file }
      return frame.lineno if frame
      (error.backtrace || []).each { |line| return Regexp.last_match(1).to_i if line =~ /\A#{Regexp.escape(@file)}:(\d+)/ }
      nil
    end

    def text_of(error)
      text = error.message.to_s.dup.force_encoding(Encoding::UTF_8).scrub
      # Only the template's own syntax errors carry its name; Ruby 3.4 words them this way.
      text = text.sub(/\A(#{Regexp.escape(@file)}:\d+): (?!syntax error)/) { "#{Regexp.last_match(1)}: syntax error found\n" } if error.is_a?(SyntaxError)
      text.strip.empty? ? '' : text
    rescue StandardError
      error.class.name.to_s
    end
  end

  # One job of a request: its sources and what they have in common.
  class Job
    MONIT = 'monit'

    def initialize(request)
      @name, @release = request.values_at('job', 'release')
      @dns = Dns.new(request['dns'])
      @monit_text = request['monit'].unpack1('m')
      @texts = request['templates'].map { |t| [t['source'], t['text'].unpack1('m')] }
      @monit = Source.new(@name, MONIT, @monit_text)
      @sources = @texts.map { |source, text| Source.new(@name, source, text) }
    end

    def lasting?
      [@monit, *@sources].any?(&:lasting?)
    end

    # Renders everything for one context: monit first, then the files in the order of the job's spec.
    def render(spec_text)
      pristine = spec_of_job(spec_text)
      current = context(spec_text)
      begin
        monit = @monit.render(current)
      rescue Exception => e # A template may raise anything, also `exit`.
        return { 'monit_error' => @monit.failure(e) }
      end
      errors = []
      files = @sources.map do |source|
        current = context(spec_text) if current.touched?(pristine)
        begin
          source.render(current)
        rescue Exception => e
          errors << source.failure(e)
          nil
        end
      end
      return { 'errors' => errors } unless errors.empty?
      { 'monit' => [monit].pack('m0'), 'files' => files.map { |text| [text].pack('m0') } }
    end

    private

    def context(spec_text)
      Bosh::Common::Template::EvaluationContext.new(spec_of_job(spec_text), @dns)
    end

    def spec_of_job(spec_text)
      spec = JSON.parse(spec_text)
      if spec['properties_need_filtering'] && spec['properties']&.key?(@name)
        spec['properties'] = spec['properties'][@name] || spec['properties']
      end
      spec['links'] = (spec['links'] || {})[@name] || {}
      spec['release'] = @release.dup
      spec
    end
  end

  class Worker
    # After each answer: whether the next request may come to this worker.
    KEEP = "\0".b.freeze
    RETIRE = "\1".b.freeze

    def initialize(limits)
      @limits = limits
      @requests = STDIN.dup.binmode
      @answers = STDOUT.dup.binmode
      @answers.sync = true
      # What a template prints must not end up between the answers.
      STDIN.reopen('/dev/null', 'r')
      STDOUT.reopen('/dev/null', 'w')
      STDERR.reopen('/dev/null', 'w')
    end

    def run
      @answers.write(frame({ 'ready' => RUBY_VERSION }) + KEEP)
      while (request = read_message(@requests))
        @answers.write(answer(request) + (littered? ? RETIRE : KEEP))
      end
    end

    private

    def answer(request)
      reader, writer = IO.pipe(binmode: true)
      child = fork do
        reader.close
        @requests.close
        @answers.close
        serve(request, writer)
        exit!(0)
      end
      writer.close
      bytes = read_answer(reader, child)
      _, status = Process.wait2(child)
      bury_strays if Process.pid == 1
      bytes || frame({ 'died' => reason(status) })
    ensure
      reader&.close
    end

    # A file that one template has left must not be there for another. Outside of a jail `/tmp` is everybody's.
    def littered?
      Process.pid == 1 && !Dir.empty?('/tmp')
    end

    # What a template has started and left behind. As the first process of a namespace we see all of it and nothing else.
    def bury_strays
      Process.kill(:KILL, -1)
      loop { Process.wait(-1) }
    rescue Errno::ESRCH, Errno::ECHILD
      # There was nobody, or nobody is left.
    end

    def read_answer(reader, child)
      header = reader.read(4)
      return nil unless header&.bytesize == 4
      length = header.unpack1('N')
      if length > @limits['answer_bytes']
        Process.kill(:KILL, child)
        return frame({ 'too_large' => length })
      end
      body = reader.read(length)
      header + body if body&.bytesize == length
    end

    # In the child.
    def serve(request, writer)
      Process.setpgid(0, 0) unless Process.pid == 1
      request = JSON.parse(request)
      job = Job.new(request)
      contexts = request['contexts'] # As JSON texts: a context may have to be made again.
      results = job.lasting? && contexts.length > 1 ? apart(job, contexts) : together(job, contexts)
      write(writer, results ? { 'results' => results } : { 'too_large' => @limits['output_bytes'] })
    end

    # Both return nil when more is rendered than a request may.
    def together(job, contexts)
      limit_cpu
      left = @limits['output_bytes']
      contexts.map do |context|
        result = job.render(context)
        left -= size(result)
        return nil if left.negative?
        result
      end
    end

    # One child per context, one after the other.
    def apart(job, contexts)
      left = @limits['output_bytes']
      contexts.map do |context|
        reader, writer = IO.pipe(binmode: true)
        child = fork do
          reader.close
          limit_cpu
          write(writer, job.render(context))
          exit!(0)
        end
        writer.close
        text = read_message(reader)
        _, status = Process.wait2(child)
        reader.close
        return nil if text == :too_large
        result = text ? JSON.parse(text) : { 'died' => reason(status) }
        left -= size(result)
        return nil if left.negative?
        result
      end
    end

    # Base64 makes four bytes of three.
    def size(result)
      (result['files'] || []).sum(&:bytesize) * 3 / 4
    end

    def limit_cpu
      Process.setrlimit(:CPU, @limits['cpu_seconds'], @limits['cpu_seconds'] + 1)
    end

    def reason(status)
      return "killed by signal #{Signal.signame(status.termsig)}" if status&.signaled?
      "it ended with status #{status&.exitstatus}"
    end

    def read_message(io)
      header = io.read(4)
      return nil unless header&.bytesize == 4
      length = header.unpack1('N')
      return :too_large if io != @requests && length > @limits['answer_bytes']
      body = io.read(length)
      body&.force_encoding(Encoding::UTF_8)
    end

    def frame(message)
      body = JSON.generate(message).b
      [body.bytesize].pack('N') + body
    end

    def write(io, message)
      io.write(frame(message))
      io.flush
    end
  end
end

Directorate::Worker.new(JSON.parse(ARGV.fetch(0))).run
