# frozen_string_literal: true

# Makes an older Ruby print what Ruby 3.4 prints.
#
# The director that BOSH ships runs on Ruby 3.4. Whatever a template prints ends up in an instance's configuration hash,
# so a different byte restarts the instance; and messages of errors are what operators and templates match. Each part
# looks at the behaviour it replaces, not at the version, and does nothing where it is there already.

module Directorate
  # `{"a" => 1, b: 2}` instead of `{"a"=>1, :b=>2}`.
  module HashInspect
    QUOTED_LABEL = /\A[@$!]|[-+*\/`%^&|\]<=>~@]\z/

    def inspect
      return '{}' if empty?
      running = (Thread.current[:directorate_inspecting] ||= {}.compare_by_identity)
      return '{...}' if running[self]
      begin
        running[self] = true
        "{#{map { |key, value| "#{HashInspect.label(key)}#{value.inspect}" }.join(', ')}}"
      ensure
        running.delete(self)
      end
    end

    def self.label(key)
      return "#{key.inspect} => " unless key.instance_of?(Symbol)
      text = key.name
      plain = !text.empty? && !key.inspect.start_with?(':"') && !text.match?(QUOTED_LABEL)
      "#{plain ? text : text.inspect}: "
    end
  end

  # "undefined method 'x' for nil", and no backquotes anywhere.
  module PlainQuotes
    def message
      Directorate.plain_quotes(super)
    end

    def to_s
      Directorate.plain_quotes(super)
    end
  end

  module NameErrorText
    SUBJECT = /\A(undefined (?:local variable or )?method|(?:private|protected) method|super: no superclass method) [`'](.*?)['’] (called for|for) /m

    def message
      Directorate.name_error(self, super)
    end

    def to_s
      Directorate.name_error(self, super)
    end
  end

  class << self
    def plain_quotes(text)
      text.include?('`') ? text.gsub(/`([^`']*)'/, "'\\1'") : text
    end

    def name_error(error, text)
      # A message that the template made itself is its own business.
      found = NameErrorText::SUBJECT.match(text) or return plain_quotes(text)
      begin
        receiver = error.receiver
      rescue ArgumentError
        return plain_quotes(text)
      end
      "#{found[1]} '#{found[2]}' #{found[3]} #{describe(receiver)}"
    end

    REAL_CLASS = Kernel.instance_method(:class)
    MODULE_NAME = Module.instance_method(:inspect)

    def describe(receiver)
      case receiver
      when nil then 'nil'
      when true then 'true'
      when false then 'false'
      when Class then "class #{MODULE_NAME.bind_call(receiver)}"
      when Module then "module #{MODULE_NAME.bind_call(receiver)}"
      when TOPLEVEL_BINDING.receiver then 'main:Object'
      else "an instance of #{MODULE_NAME.bind_call(REAL_CLASS.bind_call(receiver))}"
      end
    end

    # Replaces an error's text where an older library says the same thing in other words.
    def reword(error_class, pattern, replacement)
      error_class.prepend(Module.new do
        %i[message to_s].each do |name|
          define_method(name) { super().sub(pattern, replacement) }
        end
      end)
    end
  end

  if { 'a' => 1 }.inspect != '{"a" => 1}'
    Hash.prepend(HashInspect)
    Hash.alias_method(:to_s, :inspect)
  end

  old_quotes = begin
    nil.directorate_no_such_method
  rescue NoMethodError => e
    e.message.include?('`') || e.message.include?('NilClass')
  end
  if old_quotes
    NameError.prepend(NameErrorText)
    [ArgumentError, TypeError, LocalJumpError, FrozenError, RuntimeError, ThreadError].each { |c| c.prepend(PlainQuotes) }
  end

  if Encoding::BINARY.inspect == '#<Encoding:ASCII-8BIT>'
    reword(Encoding::CompatibilityError, /(?<!\()\bASCII-8BIT\b/, 'BINARY (ASCII-8BIT)')
    Encoding.prepend(Module.new do
      def inspect
        equal?(Encoding::BINARY) ? '#<Encoding:BINARY (ASCII-8BIT)>' : super
      end
    end)
  end
  # json 2.6 puts a line number of its own source in front.
  reword(JSON::JSONError, /\A\d+: /, '')
  reword(URI::InvalidURIError, /\Abad URI\(/, 'bad URI (')
end

# A property called `class` or `method` must not confuse OpenStruct when it makes the readers of the ones after it.
class OpenStruct
  private def is_method_protected!(name)
    return false unless respond_to?(name, true)
    owner = ::Kernel.instance_method(:method).bind_call(self, name).owner
    ::Kernel.instance_method(:class).bind_call(self).ancestors.take_while { |m| m != ::OpenStruct }.include?(owner)
  end
end
